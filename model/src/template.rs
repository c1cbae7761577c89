//! The conversation as the model was trained to read it: `ChatML`.

use crate::api::{Message, Role};
use crate::engine::{Engine, EngineError, Token};

/// What the model was trained to be told when nobody says otherwise, and a full stop, without
/// which it answers the test's question about France in broken French.
const DEFAULT_SYSTEM: &str =
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face.";

/// The tokens of a conversation, ending where the assistant's next turn begins.
///
/// Control tokens are placed here by number and never parsed from text, so no message can forge
/// a turn.
///
/// # Errors
/// When the tokenizer fails.
pub fn prompt_tokens(engine: &dyn Engine, messages: &[Message]) -> Result<Vec<Token>, EngineError> {
    let mut tokens = Vec::new();
    if messages
        .first()
        .is_none_or(|message| message.role != Role::System)
    {
        push_turn(engine, &mut tokens, Role::System, DEFAULT_SYSTEM)?;
    }
    for message in messages {
        push_turn(engine, &mut tokens, message.role, &message.text)?;
    }
    tokens.push(engine.turn_start());
    tokens.extend(engine.encode("assistant\n")?);
    Ok(tokens)
}

fn push_turn(
    engine: &dyn Engine,
    tokens: &mut Vec<Token>,
    role: Role,
    text: &str,
) -> Result<(), EngineError> {
    let role = match role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
    };
    tokens.push(engine.turn_start());
    tokens.extend(engine.encode(&format!("{role}\n{text}"))?);
    tokens.push(engine.turn_end());
    tokens.extend(engine.encode("\n")?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::ScriptedEngine;

    fn rendered(messages: &[(Role, &str)]) -> String {
        let engine = ScriptedEngine::saying("");
        let messages: Vec<Message> = messages
            .iter()
            .map(|(role, text)| Message {
                role: *role,
                text: (*text).to_owned(),
            })
            .collect();
        engine.render(&prompt_tokens(&engine, &messages).unwrap())
    }

    #[test]
    fn a_conversation_without_a_system_message_gets_the_models_own() {
        assert_eq!(
            rendered(&[(Role::User, "Hi")]),
            "[start]system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face.\
             [end]\n[start]user\nHi[end]\n[start]assistant\n"
        );
    }

    #[test]
    fn given_system_message_replaces_it() {
        assert_eq!(
            rendered(&[
                (Role::System, "Be brief."),
                (Role::User, "a"),
                (Role::Assistant, "b")
            ]),
            "[start]system\nBe brief.[end]\n[start]user\na[end]\n[start]assistant\nb[end]\n\
             [start]assistant\n"
        );
    }
}
