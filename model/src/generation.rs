//! One answer: read the prompt, then choose token after token until the model is done, a stop
//! text appears, the limit is reached or the client has gone.

mod stop;

use crate::detokenizer::Detokenizer;
use crate::engine::{Engine, EngineError, Token};
use crate::sampling::{Sampler, SamplingConfig};
use stop::StopScanner;
use tokio::sync::mpsc;

/// Prompt tokens read in one step. Between steps a vanished client is noticed; the attention
/// scores of a step take this × context × 36 bytes.
const PREFILL_STEP: usize = 128;

/// An answer to be computed.
#[derive(Debug)]
pub struct Job {
    /// What the model reads first; not empty.
    pub prompt: Vec<Token>,
    /// Most tokens of the answer.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sampling: SamplingConfig,
    /// Texts that end the answer and are no part of it.
    pub stop: Vec<String>,
    /// Where the answer goes. Closed means that nobody wants it any more.
    pub events: mpsc::Sender<Event>,
}

/// What a client hears of its answer, in this order: `Started`, any `Text`, then `Finished`. A
/// channel that closes without `Finished` is a failure.
#[derive(Debug, PartialEq)]
pub enum Event {
    /// A worker has taken the job.
    Started,
    /// More of the answer: whole characters, not empty.
    Text(String),
    /// The answer is complete.
    Finished {
        /// Why it ended.
        reason: FinishReason,
        /// Tokens chosen, the closing one included.
        completion_tokens: usize,
    },
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model was done, or a stop text appeared.
    Stop,
    /// The limit of tokens was reached.
    Length,
}

/// Room a job's channel needs so that its worker never waits for a slow reader: one event a token
/// and the start, the last held-back text and the end.
pub fn event_capacity(max_tokens: usize) -> usize {
    max_tokens + 3
}

/// Computes an answer; returns early, without an error, when nobody wants it any more.
///
/// # Errors
/// When the model fails.
pub fn run(engine: &dyn Engine, job: &Job) -> Result<(), EngineError> {
    if job.events.try_send(Event::Started).is_err() {
        return Ok(());
    }
    let mut decoding = engine.begin();
    let mut scores = Vec::new();
    for part in job.prompt.chunks(PREFILL_STEP) {
        if job.events.is_closed() {
            return Ok(());
        }
        scores = decoding.advance(part)?;
    }
    let mut sampler = Sampler::new(job.sampling);
    let mut answer = Answer::new(&job.stop);
    let mut completion_tokens = 0;
    let reason = loop {
        let token = sampler
            .choose(std::mem::take(&mut scores))
            .ok_or_else(|| EngineError("no scores".to_owned()))?;
        completion_tokens += 1;
        if token == engine.turn_end() {
            break FinishReason::Stop;
        }
        let (text, stopped) = answer.push(engine.token_bytes(token));
        if !send_text(job, text) {
            return Ok(());
        }
        if stopped {
            break FinishReason::Stop;
        }
        if completion_tokens >= job.max_tokens {
            break FinishReason::Length;
        }
        scores = decoding.advance(&[token])?;
    };
    if send_text(job, answer.finish()) {
        // A client that left after the last word has nothing more to be told.
        drop(job.events.try_send(Event::Finished {
            reason,
            completion_tokens,
        }));
    }
    Ok(())
}

/// Whether the client still wants the rest.
fn send_text(job: &Job, text: String) -> bool {
    if text.is_empty() {
        return !job.events.is_closed();
    }
    job.events.try_send(Event::Text(text)).is_ok()
}

/// The text of an answer on its way from bytes to the client.
struct Answer {
    detokenizer: Detokenizer,
    scanner: StopScanner,
}

impl Answer {
    fn new(stop: &[String]) -> Self {
        Self {
            detokenizer: Detokenizer::default(),
            scanner: StopScanner::new(stop),
        }
    }

    /// The text that may be shown now, and whether a stop text was reached.
    fn push(&mut self, bytes: &[u8]) -> (String, bool) {
        let text = self.detokenizer.push(bytes);
        self.scanner.push(&text)
    }

    /// The text that was held back: all of it unless a stop text was reached.
    fn finish(&mut self) -> String {
        let rest = self.detokenizer.finish();
        let (mut text, stopped) = self.scanner.push(&rest);
        if !stopped {
            text.push_str(&self.scanner.finish());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::ScriptedEngine;
    use std::sync::atomic::Ordering;

    fn job(max_tokens: usize, stop: &[&str]) -> (Job, mpsc::Receiver<Event>) {
        let (events, receiver) = mpsc::channel(event_capacity(max_tokens));
        let sampling = SamplingConfig {
            temperature: 0.0,
            top_p: 1.0,
            seed: 1,
        };
        let stop = stop.iter().map(|text| (*text).to_owned()).collect();
        (
            Job {
                prompt: vec![1; 300],
                max_tokens,
                sampling,
                stop,
                events,
            },
            receiver,
        )
    }

    fn answer(script: &str, max_tokens: usize, stop: &[&str]) -> (String, Option<Event>) {
        let (job, mut receiver) = job(max_tokens, stop);
        run(&ScriptedEngine::saying(script), &job).unwrap();
        drop(job);
        assert_eq!(receiver.try_recv(), Ok(Event::Started));
        let mut text = String::new();
        let mut last = None;
        while let Ok(event) = receiver.try_recv() {
            match event {
                Event::Text(part) => text.push_str(&part),
                other => last = Some(other),
            }
        }
        (text, last)
    }

    fn finished(reason: FinishReason, completion_tokens: usize) -> Event {
        Event::Finished {
            reason,
            completion_tokens,
        }
    }

    #[test]
    fn an_answer_ends_when_the_model_is_done() {
        assert_eq!(
            answer("Grüß", 50, &[]),
            ("Grüß".to_owned(), Some(finished(FinishReason::Stop, 7)))
        );
    }

    #[test]
    fn an_answer_ends_at_its_limit() {
        assert_eq!(
            answer("abcdef", 3, &[]),
            ("abc".to_owned(), Some(finished(FinishReason::Length, 3)))
        );
    }

    #[test]
    fn stop_text_ends_the_answer_and_is_not_shown() {
        let (text, last) = answer("one END two", 50, &["END"]);
        assert_eq!(
            (text.as_str(), last),
            ("one ", Some(finished(FinishReason::Stop, 7)))
        );
    }

    #[test]
    fn text_held_back_for_a_stop_that_never_came_is_shown_at_the_end() {
        assert_eq!(answer("one EN", 50, &["END"]).0, "one EN");
    }

    #[test]
    fn nothing_is_computed_for_a_client_that_has_gone() {
        let engine = ScriptedEngine::saying("abc");
        let (job, receiver) = job(5, &[]);
        drop(receiver);
        run(&engine, &job).unwrap();
        assert_eq!(engine.steps().load(Ordering::SeqCst), 0);
    }
}
