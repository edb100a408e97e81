//! The kit itself, and `dev/stack`, on which it stands.

mod kit;
mod proxy;
mod stack;
