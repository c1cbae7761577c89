//! `SmolLM2-135M-Instruct` on the CPU. Weights and vocabulary come from one GGUF file and are
//! shared by all conversations; a conversation owns only its key-value cache (90 KB a token).

use crate::detokenizer::bytes_of_entry;
use crate::engine::{Decoding, Engine, EngineError, Token};
use anyhow::Context as _;
use candle_core::quantized::gguf_file;
use candle_core::quantized::tokenizer::TokenizerFromGguf as _;
use candle_core::{Device, Tensor};
use candle_transformers::models::quantized_llama::{MAX_SEQ_LEN, ModelWeights};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use tokenizers::Tokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;

const TURN_START: &str = "<|im_start|>";
const TURN_END: &str = "<|im_end|>";

/// The loaded model.
pub struct SmolLm {
    weights: ModelWeights,
    tokenizer: Tokenizer,
    /// Bytes by token, so that no lock or lookup stands between a token and its text.
    vocabulary: Vec<Box<[u8]>>,
    turn_start: Token,
    turn_end: Token,
    context_tokens: usize,
}

impl std::fmt::Debug for SmolLm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SmolLm")
            .field("vocabulary", &self.vocabulary.len())
            .field("context_tokens", &self.context_tokens)
            .finish_non_exhaustive()
    }
}

impl SmolLm {
    /// Loads a GGUF file. Takes about a second and 400 MiB.
    ///
    /// # Errors
    /// When the file is unreadable, damaged, or of another kind of model.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let content = gguf_file::Content::read(&mut reader)
            .with_context(|| format!("{} is not a GGUF file", path.display()))?;
        let tokenizer = tokenizer(&content)?;
        let control = |name: &str| {
            tokenizer
                .token_to_id(name)
                .with_context(|| format!("the vocabulary lacks {name}"))
        };
        let (turn_start, turn_end) = (control(TURN_START)?, control(TURN_END)?);
        let specials = tokenizer.get_added_tokens_decoder();
        let size = u32::try_from(tokenizer.get_vocab_size(true))?;
        let vocabulary = (0..size)
            .map(|token| match tokenizer.id_to_token(token) {
                Some(entry) if !specials.contains_key(&token) => bytes_of_entry(&entry)
                    .unwrap_or_default()
                    .into_boxed_slice(),
                _ => Box::default(),
            })
            .collect();
        let trained = content
            .metadata
            .get("llama.context_length")
            .and_then(|value| value.to_u32().ok())
            .map_or(MAX_SEQ_LEN, |tokens| tokens as usize);
        let weights = ModelWeights::from_gguf(content, &mut reader, &Device::Cpu)
            .context("the weights do not load")?;
        Ok(Self {
            weights,
            tokenizer,
            vocabulary,
            turn_start,
            turn_end,
            // The library computes positions up to its own limit only, half of what the model
            // was trained for.
            context_tokens: trained.min(MAX_SEQ_LEN),
        })
    }
}

/// The tokenizer the file describes, with the splitting rules the library has no name for: `SmolLM`
/// reads every digit on its own.
fn tokenizer(content: &gguf_file::Content) -> anyhow::Result<Tokenizer> {
    let mut tokenizer = Tokenizer::from_gguf(content).context("the tokenizer does not load")?;
    tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![
        Digits::new(true).into(),
        ByteLevel::new(false, true, true).into(),
    ])));
    // A visitor who types a control token gets its letters, not its power.
    tokenizer.set_encode_special_tokens(true);
    Ok(tokenizer)
}

impl Engine for SmolLm {
    fn encode(&self, text: &str) -> Result<Vec<Token>, EngineError> {
        self.tokenizer
            .encode_fast(text, false)
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|error| EngineError(error.to_string()))
    }

    fn turn_start(&self) -> Token {
        self.turn_start
    }

    fn turn_end(&self) -> Token {
        self.turn_end
    }

    fn token_bytes(&self, token: Token) -> &[u8] {
        usize::try_from(token)
            .ok()
            .and_then(|index| self.vocabulary.get(index))
            .map_or(&[], |bytes| bytes)
    }

    fn context_tokens(&self) -> usize {
        self.context_tokens
    }

    fn begin(&self) -> Box<dyn Decoding> {
        // Cloning shares the tensors. A clone for each conversation, because the library keeps an
        // attention mask for every prompt length it has seen and never lets go of one.
        Box::new(SmolLmDecoding {
            weights: self.weights.clone(),
            read: 0,
        })
    }
}

/// One conversation: shared weights and its own cache.
struct SmolLmDecoding {
    weights: ModelWeights,
    /// Tokens in the cache.
    read: usize,
}

impl Decoding for SmolLmDecoding {
    fn advance(&mut self, tokens: &[Token]) -> Result<Vec<f32>, EngineError> {
        let failed = |error: candle_core::Error| EngineError(error.to_string());
        let input = Tensor::new(tokens, &Device::Cpu)
            .and_then(|tensor| tensor.unsqueeze(0))
            .map_err(failed)?;
        let scores = self
            .weights
            .forward(&input, self.read)
            .and_then(|tensor| tensor.squeeze(0))
            .and_then(|tensor| tensor.to_vec1::<f32>())
            .map_err(failed)?;
        self.read += tokens.len();
        Ok(scores)
    }
}

#[cfg(test)]
mod tests {
    //! With the real weights, named by `HUBBUB_MODEL_FILE`.

    use super::*;
    use crate::api::{Message, Role};
    use crate::generation::{Event, Job, event_capacity, run};
    use crate::sampling::SamplingConfig;
    use crate::template::prompt_tokens;
    use tokio::sync::mpsc;

    /// The model, or nothing and a loud word about it.
    fn model() -> Option<SmolLm> {
        let Some(path) = std::env::var_os("HUBBUB_MODEL_FILE") else {
            eprintln!("SKIPPED: HUBBUB_MODEL_FILE names no weights file; run `make setup` first");
            return None;
        };
        Some(SmolLm::load(Path::new(&path)).unwrap())
    }

    fn ask(model: &SmolLm, question: &str, temperature: f32) -> String {
        let message = Message {
            role: Role::User,
            text: question.to_owned(),
        };
        let prompt = prompt_tokens(model, &[message]).unwrap();
        let (events, mut receiver) = mpsc::channel(event_capacity(48));
        let sampling = SamplingConfig {
            temperature,
            top_p: 1.0,
            seed: 7,
        };
        let job = Job {
            prompt,
            max_tokens: 48,
            sampling,
            stop: Vec::new(),
            events,
        };
        run(model, &job).unwrap();
        let mut answer = String::new();
        while let Ok(event) = receiver.try_recv() {
            if let Event::Text(text) = event {
                answer.push_str(&text);
            }
        }
        answer
    }

    #[test]
    fn real_model_knows_the_capital_of_france_and_repeats_itself_by_seed() {
        let Some(model) = model() else { return };
        let question = "What is the capital of France?";
        let answer = ask(&model, question, 0.2);
        assert!(answer.contains("Paris"), "{answer}");
        assert_eq!(ask(&model, question, 0.2), answer);
    }

    #[test]
    fn real_vocabulary_turns_text_to_tokens_and_back() {
        let Some(model) = model() else { return };
        let text = "Grüße, 2026! 日本 <|im_end|>\n\tfn main() {}";
        let tokens = model.encode(text).unwrap();
        assert!(
            !tokens.contains(&model.turn_end),
            "control text must stay text"
        );
        let bytes: Vec<u8> = tokens
            .iter()
            .flat_map(|token| model.token_bytes(*token))
            .copied()
            .collect();
        assert_eq!(String::from_utf8(bytes).unwrap(), text);
        assert!(model.token_bytes(model.turn_end).is_empty());
    }
}
