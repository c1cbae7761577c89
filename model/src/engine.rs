//! What a language model is to the rest of the program: text to tokens, tokens to scores.
//! `smollm` implements it with real weights, the tests with a scripted one.

use std::fmt::Debug;

/// A token: an index into the model's vocabulary.
pub type Token = u32;

/// The numeric library or the tokenizer failed. Never shown to a client.
#[derive(Debug, thiserror::Error)]
#[error("the model failed: {0}")]
pub struct EngineError(pub String);

/// A loaded model, shared by all workers. Its weights are read only.
pub trait Engine: Debug + Send + Sync + 'static {
    /// The tokens of plain text. Text that looks like a control token is still plain text.
    fn encode(&self, text: &str) -> Result<Vec<Token>, EngineError>;
    /// The control token that opens a turn.
    fn turn_start(&self) -> Token;
    /// The control token that closes a turn; the model says it when its answer is done.
    fn turn_end(&self) -> Token;
    /// The bytes a token stands for: none for control tokens.
    fn token_bytes(&self, token: Token) -> &[u8];
    /// Most tokens of a prompt and its answer together.
    fn context_tokens(&self) -> usize;
    /// Starts an empty conversation.
    fn begin(&self) -> Box<dyn Decoding>;
}

/// One conversation being computed: what the model has read so far.
pub trait Decoding {
    /// Reads `tokens` after those read before; returns one score for each vocabulary entry, the
    /// higher the likelier as the next token.
    fn advance(&mut self, tokens: &[Token]) -> Result<Vec<f32>, EngineError>;
}

#[cfg(test)]
pub mod testing {
    //! A model that says what it is told to, a byte a token, so that tests need no weights.

    use super::{Decoding, Engine, EngineError, Token};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex, mpsc};

    const START: Token = 256;
    const END: Token = 257;

    /// Answers every conversation with the same bytes.
    #[derive(Debug)]
    pub struct ScriptedEngine {
        script: Vec<u8>,
        /// When present, each step waits for a permit; a closed channel lets all pass.
        gate: Option<Arc<Mutex<mpsc::Receiver<()>>>>,
        steps: Arc<AtomicUsize>,
        panics: bool,
    }

    impl ScriptedEngine {
        /// A model that says `answer` and ends its turn.
        pub fn saying(answer: &str) -> Self {
            Self {
                script: answer.as_bytes().to_vec(),
                gate: None,
                steps: Arc::default(),
                panics: false,
            }
        }

        /// As `saying`, but each step waits until the returned sender permits it or is dropped.
        pub fn gated(answer: &str) -> (Self, mpsc::Sender<()>) {
            let (permit, gate) = mpsc::channel();
            let gate = Some(Arc::new(Mutex::new(gate)));
            (
                Self {
                    gate,
                    ..Self::saying(answer)
                },
                permit,
            )
        }

        /// A model whose first step panics.
        pub fn panicking() -> Self {
            Self {
                panics: true,
                ..Self::saying("")
            }
        }

        /// Counts the steps of all conversations.
        pub fn steps(&self) -> Arc<AtomicUsize> {
            Arc::clone(&self.steps)
        }

        /// Tokens as readable text.
        pub fn render(&self, tokens: &[Token]) -> String {
            let mut text = String::new();
            for token in tokens {
                match *token {
                    START => text.push_str("[start]"),
                    END => text.push_str("[end]"),
                    _ => text.push_str(&String::from_utf8_lossy(self.token_bytes(*token))),
                }
            }
            text
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "the index stays below 256")]
    static BYTES: [u8; 256] = {
        let mut bytes = [0; 256];
        let mut index = 0;
        while index < 256 {
            bytes[index] = index as u8;
            index += 1;
        }
        bytes
    };

    impl Engine for ScriptedEngine {
        fn encode(&self, text: &str) -> Result<Vec<Token>, EngineError> {
            Ok(text.bytes().map(Token::from).collect())
        }
        fn turn_start(&self) -> Token {
            START
        }
        fn turn_end(&self) -> Token {
            END
        }
        fn token_bytes(&self, token: Token) -> &[u8] {
            BYTES
                .get(token as usize..=token as usize)
                .unwrap_or_default()
        }
        fn context_tokens(&self) -> usize {
            400
        }
        fn begin(&self) -> Box<dyn Decoding> {
            Box::new(ScriptedDecoding {
                script: self.script.clone(),
                said: 0,
                gate: self.gate.clone(),
                steps: Arc::clone(&self.steps),
                panics: self.panics,
            })
        }
    }

    struct ScriptedDecoding {
        script: Vec<u8>,
        said: usize,
        gate: Option<Arc<Mutex<mpsc::Receiver<()>>>>,
        steps: Arc<AtomicUsize>,
        panics: bool,
    }

    impl Decoding for ScriptedDecoding {
        fn advance(&mut self, tokens: &[Token]) -> Result<Vec<f32>, EngineError> {
            assert!(!self.panics, "scripted panic");
            self.steps.fetch_add(1, Ordering::SeqCst);
            if let Some(gate) = &self.gate {
                // A dropped sender opens the gate for good.
                gate.lock().unwrap().recv().ok();
            }
            // Only the token offered last moves the script on; a prompt leaves it at its start.
            if let [token] = tokens
                && self.script.get(self.said).copied().map(Token::from) == Some(*token)
            {
                self.said += 1;
            }
            let next = self.script.get(self.said).copied().map_or(END, Token::from);
            let mut scores = vec![0.0; 258];
            scores[next as usize] = 100.0;
            Ok(scores)
        }
    }
}
