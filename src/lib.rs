//! Larder, a caching HTTP accelerator: a reverse proxy with a content-addressed store on disk.
//!
//! ```text
//! floor 4   main  cli  config  ops        builds the house, speaks to people
//! floor 3   flow                          the life of one request
//! floor 2   net  upstream  acme  store  clock   the outside world, a folder a neighbour
//! floor 1   state                         machines: events in, actions out
//! floor 0   rules                         decisions: values in, verdict out
//! ```
//!
//! A file names its own folder and the floors below it. Rooms of floor 2 never name each other: a
//! request passes from one to the next through `flow`. Floors 0 and 1 have no IO, no locks, no
//! clock and no chance: those come as arguments. `ARCHITECTURE.md` tells the rest.

pub mod acme;
pub mod cli;
pub mod clock;
pub mod config;
pub mod flow;
pub mod net;
pub mod ops;
pub mod rules;
pub mod state;
pub mod store;
pub mod upstream;
