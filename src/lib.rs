//! The world around Hubbub's behaviour: HTTP, sockets, PostgreSQL, LLM upstreams, configuration.
//! `main.rs` composes these modules and decides nothing.

pub mod config;
pub mod llm;
pub mod storage;
pub mod telemetry;
