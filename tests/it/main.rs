//! Scenes: the real binary between a scripted origin and a raw client, over real sockets.
//!
//! [`scene`] builds one, [`origin`] is the far end, [`client`] the near one; every other file is
//! one topic, and the name of each test is a sentence about the product. Waiting is done for a
//! signal (a request that arrived, a gate that opened, a figure in `/stats`), with a deadline that
//! only a failure reaches.

#![expect(
    clippy::disallowed_methods,
    reason = "scenes run in real time: deadlines need a clock"
)]
#![expect(
    clippy::expect_used,
    reason = "a scene that cannot be set up should stop and say why"
)]
#![expect(
    clippy::indexing_slicing,
    reason = "the harness cuts buffers it has just measured"
)]
#![expect(
    clippy::unwrap_used,
    reason = "a scene that cannot be set up should stop"
)]

mod client;
mod dial;
mod exposition;
mod frames;
mod origin;
mod pebble;
mod scene;

mod acme;
mod admin;
mod bad_requests;
mod certificates;
mod client_certificates;
mod collapse;
mod commands;
mod config;
mod connections;
mod crash;
mod dirs;
mod drain;
mod errors;
mod explain;
mod files;
mod floods;
mod forwarded;
mod freshness;
mod handshakes;
mod harness;
mod http2;
mod https;
mod invalidation;
mod keys;
mod killing;
mod limits;
mod live;
mod logs;
mod main_path;
mod messages;
mod metrics;
mod origins_h2;
mod origins_h2_faults;
mod origins_tls;
mod parts;
mod plugins;
mod post;
mod preconditions;
mod properties;
mod proxy_protocol;
mod purge;
mod purge_kinds;
mod purges;
mod range;
mod reload;
mod requests;
mod rfc9113;
mod slices;
mod soak;
mod stale;
mod store;
mod storing;
mod takeover;
mod targeted;
mod telling;
mod time;
mod tls;
mod tools;
mod top;
mod traces;
mod trouble;
mod upgrades;
mod upstream;
mod validation;
mod vary;
mod websocket_h2;
