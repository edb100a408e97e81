//! The load generator against the real service.

mod open;
