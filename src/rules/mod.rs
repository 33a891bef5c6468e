//! Decisions: values in, verdict out. No IO, no clock, no state, no logging.
//!
//! Every rule of HTTP that Larder follows is a plain function in this folder, one file per RFC
//! section or per noun. Time and chance are arguments.

pub mod address;
mod authority;
pub mod balance;
pub mod cache_status;
pub mod challenge;
pub mod directives;
mod fields;
pub mod forwarded;
pub mod freshness;
pub mod guard;
pub mod hops;
pub mod identity;
pub mod invalidate;
pub mod key;
pub mod part;
pub mod proxy_protocol;
pub mod proxy_status;
pub mod range;
pub mod reason;
pub mod request;
pub mod reuse;
pub mod route;
pub mod search;
pub mod secret;
pub mod selecting;
pub mod storable;
pub mod stored;
pub mod tag;
pub mod target;
pub mod targeted;
pub mod trace;
pub mod upgrade;
pub mod validation;
