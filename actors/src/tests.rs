//! The behaviour as a device sees it: everything goes in through [`crate::Hub`] and its handles, and is
//! judged by the frames that come out and by what storage holds afterwards. Time is virtual.

mod absence;
mod answers;
mod chaos;
mod chat;
mod conversation;
mod crashes;
mod devices;
mod draining;
mod escalating;
mod fairness;
mod hedging;
mod joining;
mod ledger;
mod lifecycle;
mod limits;
mod log;
mod node;
mod notes;
mod recorder;
mod sharing;
mod stopping;
mod storage;
mod takeover;
mod upstreams;
mod view;
mod visitors;
