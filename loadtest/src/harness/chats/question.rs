//! One question: asked, and its answer followed frame by frame to the end.

use std::time::Duration;

use hubbub_protocol::{ClientMessageId, SessionId};
use tokio::time::Instant;

use super::{Found, Run};
use crate::harness::transcript::{Ended, Transcript};
use crate::harness::wire::{self, Incoming, Wire};
use crate::simllm;

/// One question under way.
struct Question<'a> {
    run: &'a Run,
    id: ClientMessageId,
    text: String,
    asked_at: Instant,
    last_delta: Option<Instant>,
    acked: Option<u64>,
    message_seen: bool,
    /// When a place in the queue was told first, and the wait that was told with it.
    queued: Option<(Instant, Duration)>,
    /// When to try again, of a refusal.
    retry_after: Option<Duration>,
}

/// The least wait that a told one is compared with: less is noise.
const TOLD_WAIT: Duration = Duration::from_millis(250);

/// Asks one question and follows its answer to the end. Returns when to try again, if that was said.
pub(super) async fn ask(
    run: &Run,
    wire: &mut Wire,
    session: SessionId,
    text: String,
    transcript: &mut Transcript,
) -> anyhow::Result<Option<Duration>> {
    let id = ClientMessageId::generate();
    let asked_at = Instant::now();
    wire.say(&wire::send(session, id, text.clone())).await?;
    run.found().asked += 1;
    let mut question = Question {
        run,
        id,
        text,
        asked_at,
        last_delta: None,
        acked: None,
        message_seen: false,
        queued: None,
        retry_after: None,
    };
    let deadline = asked_at + Duration::from_secs(run.options.deadline);
    loop {
        let text = wire.text_by(deadline).await?;
        if question.take(wire::decode(&text), transcript) {
            let seen = question.acked.is_some() && question.message_seen;
            transcript
                .violations
                .check(seen, || "an answer before its question".to_owned());
            return Ok(question.retry_after);
        }
    }
}

impl Question<'_> {
    /// Takes one frame; `true` when the question has met its end.
    fn take(&mut self, frame: Incoming<'_>, transcript: &mut Transcript) -> bool {
        let now = Instant::now();
        let mut found = self.run.found();
        found.frames += 1;
        match frame.kind {
            "ack" if frame.id == Some(self.id) => {
                found.ack.record(now - self.asked_at);
                self.acked = frame.seq;
                false
            }
            "delta" => {
                let (Some(reply), Some(offset), Some(piece)) =
                    (frame.reply, frame.offset, frame.text)
                else {
                    found.violations.add("a delta lacks a field");
                    return false;
                };
                if transcript.delta(reply, offset, &piece) {
                    let first = now - self.asked_at;
                    found.first_delta.record(first);
                    let late = self.run.options.late_ms;
                    if late > 0 && first >= Duration::from_millis(late) {
                        found.late_until = now - self.run.began;
                    }
                    found
                        .added
                        .record(first.saturating_sub(self.run.upstream_ttft));
                } else if let Some(last) = self.last_delta {
                    found.gap.record(now - last);
                }
                self.last_delta = Some(now);
                false
            }
            "message" => self.message(now, frame, transcript, &mut found),
            "reply" => {
                let Some(reply) = frame.reply else {
                    return false;
                };
                let (code, retry_after_ms) = match (frame.state, frame.error) {
                    (Some("failed"), Some(error)) => (error.code, error.retry_after_ms),
                    (Some("cancelled"), _) => ("cancelled".to_owned(), None),
                    (Some("queued"), _) => {
                        let eta = Duration::from_millis(frame.eta_ms.unwrap_or_default());
                        self.queued.get_or_insert((now, eta));
                        return false;
                    }
                    (Some("started"), _) => {
                        self.compare_waits(now, &mut found);
                        return false;
                    }
                    _ => return false,
                };
                *found.errors.entry(code).or_default() += 1;
                if transcript.end(reply).is_none() {
                    found.unshown += 1;
                }
                self.refused(retry_after_ms, &mut found);
                true
            }
            "error" => {
                *found
                    .errors
                    .entry(frame.code.unwrap_or("?").to_owned())
                    .or_default() += 1;
                self.refused(frame.retry_after_ms, &mut found);
                // Refused, so not stored: the question has no answer to wait for.
                self.acked = Some(0);
                self.message_seen = true;
                true
            }
            _ => false,
        }
    }

    fn refused(&mut self, retry_after_ms: Option<u64>, found: &mut Found) {
        self.retry_after = retry_after_ms.map(Duration::from_millis);
        found.told += u64::from(self.retry_after.is_some());
    }

    fn compare_waits(&mut self, now: Instant, found: &mut Found) {
        if let Some((at, told)) = self.queued.take() {
            let real = now - at;
            if real >= TOLD_WAIT {
                let off = real.abs_diff(told).as_secs_f64() / real.as_secs_f64();
                found.wait_errors.push(off);
            }
        }
    }

    fn message(
        &mut self,
        now: Instant,
        frame: Incoming<'_>,
        transcript: &mut Transcript,
        found: &mut Found,
    ) -> bool {
        let (Some(seq), Some(text)) = (frame.seq, frame.text) else {
            found.violations.add("a message lacks a field");
            return false;
        };
        if frame.id == Some(self.id) {
            self.message_seen = true;
        }
        let Some(reply) = frame.reply else {
            transcript.message(seq, frame.id, None, text);
            return false;
        };
        found.total.record(now - self.asked_at);
        found.answered += 1;
        found.in_time += u64::from(now <= self.run.ends_at);
        found.text_units += text.encode_utf16().count() as u64;
        if let Some(tokens) = self.run.tokens {
            found
                .violations
                .check(text == simllm::answer_text(&self.text, tokens), || {
                    format!("the answer to {:?} is not its own: {text:?}", self.text)
                });
        }
        if transcript.message(seq, frame.id, Some(reply), text) == Some(Ended::WithTail) {
            found.tails += 1;
        }
        true
    }
}
