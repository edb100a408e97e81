//! The targets over the kept corpus and over inputs made of it.

mod replay;
