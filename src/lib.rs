//! The world around Hubbub's behaviour: HTTP, sockets, LLM upstreams, configuration.
//! `app` composes these modules and decides nothing.

pub mod admission;
pub mod app;
pub mod cli;
pub mod config;
pub mod http;
pub mod identity;
pub mod llm;
pub mod realtime;
pub mod telemetry;
