//! The room as a whole: what is encoded decodes, nothing else does, and both books keep a session moving.

mod arbitrary;
mod flow;
mod frozen;
mod hostile;
mod round_trips;
mod simulation;
