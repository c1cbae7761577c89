//! The prompt: the bot's instructions and as many of the newest messages as the model can read. Pure.

use hubbub_protocol::Role;

use crate::ports::{BotConfig, ChatTurn, PageSize, StoredMessage, TurnRole};

/// Messages read for a prompt; a window of tokens rarely holds more.
const MOST_MESSAGES: u32 = 100;

/// Bytes of text that count as one token.
const TOKEN_BYTES: u32 = 3;

/// Tokens around each turn: role and separators.
const TURN_OVERHEAD: usize = 6;

/// Estimates the tokens of a text, rather too many than too few: about three bytes a token, where
/// English has more than four and scripts of several bytes a character have fewer characters a token.
pub(crate) fn estimate_tokens(text: &str) -> usize {
    text.len().div_ceil(TOKEN_BYTES as usize) + TURN_OVERHEAD
}

/// What to read for a window of tokens: more would not fit in it.
pub(crate) fn page_size(window: u32) -> PageSize {
    PageSize {
        messages: MOST_MESSAGES,
        bytes: window.saturating_mul(TOKEN_BYTES),
    }
}

/// The turns to send, oldest first. `None` if not even the newest message fits in the window beside the
/// instructions and the answer.
pub(crate) fn build(
    bot: &BotConfig,
    messages: &[StoredMessage],
    window: u32,
) -> Option<Vec<ChatTurn>> {
    let answer = usize::try_from(bot.max_output_tokens).unwrap_or(usize::MAX);
    let window = usize::try_from(window).unwrap_or(usize::MAX);
    let instructions = if bot.prompt.is_empty() {
        0
    } else {
        estimate_tokens(&bot.prompt)
    };
    let mut left = window.checked_sub(answer)?.checked_sub(instructions)?;

    let mut turns = Vec::new();
    for message in messages.iter().rev() {
        let Some(rest) = left.checked_sub(estimate_tokens(&message.text)) else {
            break;
        };
        left = rest;
        turns.push(ChatTurn {
            role: turn_role(message.role),
            text: message.text.clone(),
        });
    }
    if turns.is_empty() {
        return None;
    }
    if !bot.prompt.is_empty() {
        turns.push(ChatTurn {
            role: TurnRole::System,
            text: bot.prompt.clone(),
        });
    }
    turns.reverse();
    Some(turns)
}

fn turn_role(role: Role) -> TurnRole {
    match role {
        Role::Visitor => TurnRole::User,
        Role::Assistant | Role::Operator => TurnRole::Assistant,
        Role::System => TurnRole::System,
    }
}

#[cfg(test)]
mod tests {
    use hubbub_protocol::{BotId, ClientMessageId, Seq, SessionId, Timestamp};
    use proptest::prelude::*;

    use super::*;

    fn bot(prompt: &str, max_output_tokens: u32) -> BotConfig {
        BotConfig {
            bot: BotId::generate(),
            name: "Bot".into(),
            prompt: prompt.into(),
            route: vec![],
            model: None,
            replies: true,
            max_output_tokens,
        }
    }

    fn message(seq: u64, text: &str) -> StoredMessage {
        StoredMessage {
            session: SessionId::generate(),
            seq: Seq(seq),
            id: ClientMessageId::generate(),
            role: if seq % 2 == 1 {
                Role::Visitor
            } else {
                Role::Assistant
            },
            author: String::new(),
            text: text.into(),
            attachments: vec![],
            metadata: None,
            at: Timestamp::from_unix_ms(0),
            reply: None,
            model: None,
            usage: None,
            latency_ms: None,
        }
    }

    proptest! {
        /// The prompt is the instructions and a suffix of the conversation, and never over the window.
        #[test]
        fn the_prompt_fits_and_keeps_the_newest(
            texts in prop::collection::vec(".{1,200}", 1..40), window in 100u32..2_000,
        ) {
            let messages: Vec<_> =
                texts.iter().enumerate().map(|(n, text)| message(n as u64 + 1, text)).collect();
            if let Some(turns) = build(&bot("Be kind.", 64), &messages, window) {
                let tokens: usize = turns.iter().map(|turn| estimate_tokens(&turn.text)).sum();
                prop_assert!(tokens + 64 <= window as usize);
                prop_assert_eq!(turns[0].role, TurnRole::System);
                let said: Vec<_> = turns[1..].iter().map(|turn| turn.text.clone()).collect();
                prop_assert!(texts.ends_with(&said));
                prop_assert!(!said.is_empty());
            }
        }
    }

    #[test]
    fn a_message_larger_than_the_window_has_no_prompt() {
        assert_eq!(
            build(&bot("", 100), &[message(1, &"x".repeat(4_000))], 1_000),
            None
        );
        assert_eq!(build(&bot("", 2_000), &[message(1, "x")], 1_000), None);
    }
}
