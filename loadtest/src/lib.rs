//! Tools that put load on a Hubbub server and check what it promised: a simulated LLM upstream
//! ([`simllm`]), a minimal socket server to compare with, and the harness itself.
//!
//! Everything here speaks to the server from outside, in the words of `hubbub-protocol` alone.

pub mod bare;
pub mod harness;
pub mod simllm;
