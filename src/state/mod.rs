//! Machines: events in, answers out. No IO, no locks, no clock, no chance.
//!
//! A machine remembers what happened and says what follows; whoever owns it (in `flow`) puts the
//! lock round it and does what it says. None of them can fail: a bound that is reached is an
//! answer.

mod buckets;
pub mod challenges;
pub mod collapse;
pub mod crowds;
pub mod curve;
pub mod eviction;
pub mod health;
pub mod heavy;
pub mod hit_for_miss;
pub mod index;
pub mod marks;
pub mod orders;
pub mod roster;
mod slab;
pub mod spread;
pub mod takeover;
pub mod variances;
