//! The demo: a tenant, a bot and an API key, made at the first start and written to `demo.json`.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use hubbub_protocol::http::Demo;
use hubbub_protocol::{BotId, Escalation, TenantId};

use crate::identity::ApiKey;
use hubbub_storage::bots::NewBot;
use hubbub_storage::{Storage, api_keys, bots, tenants};

/// Written for a small model, which answers well until it is given several instructions at once.
const PROMPT: &str = "You are Fern, an outdoor shop assistant at Fernhill Outdoor.";

const MAX_OUTPUT_TOKENS: u32 = 400;

/// Where the demo's ids are written.
pub fn file(data_dir: &Path) -> PathBuf {
    data_dir.join("demo.json")
}

/// The demo of an earlier start, or a new one.
///
/// # Errors
/// The database or the file could not be written.
pub async fn seed(storage: &Storage, data_dir: &Path, url: &str) -> anyhow::Result<Demo> {
    let path = file(data_dir);
    let demo = match known(storage, &path).await? {
        Some(demo) => Demo {
            url: url.to_owned(),
            ..demo
        },
        None => create(storage, url).await?,
    };
    write(&path, &demo).with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(demo)
}

/// The demo in the file, if the database still has it.
async fn known(storage: &Storage, path: &Path) -> anyhow::Result<Option<Demo>> {
    let Ok(text) = std::fs::read_to_string(path) else {
        return Ok(None);
    };
    let Ok(demo) = serde_json::from_str::<Demo>(&text) else {
        tracing::warn!(path = %path.display(), "the demo file cannot be read; making a new demo");
        return Ok(None);
    };
    let bot = storage.find_widget_bot(demo.bot).await?;
    Ok(bot
        .is_some_and(|bot| bot.tenant == demo.tenant)
        .then_some(demo))
}

async fn create(storage: &Storage, url: &str) -> anyhow::Result<Demo> {
    let tenant = TenantId::generate();
    let key = ApiKey::generate();
    let scope = storage.scope(tenant).await?;
    tenants::insert(&scope, "Demo", 1).await?;
    let bot = NewBot {
        id: BotId::generate(),
        name: "Fern".to_owned(),
        prompt: PROMPT.to_owned(),
        route: Vec::new(),
        model: None,
        replies: true,
        max_output_tokens: MAX_OUTPUT_TOKENS,
        escalation: Escalation::default(),
        answer_cache_s: 0,
        allowed_origins: Vec::new(),
    };
    let bot = bots::insert(&scope, &bot).await?.id;
    api_keys::insert(&scope, &key.id, &key.digest(), "Demo").await?;
    scope.commit().await?;
    Ok(Demo {
        tenant,
        bot,
        api_key: key.expose(),
        url: url.to_owned(),
    })
}

/// Whole or not at all, and for its owner only: it holds a key.
fn write(path: &Path, demo: &Demo) -> anyhow::Result<()> {
    let partial = path.with_extension("json.partial");
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)?;
    file.write_all(serde_json::to_string_pretty(demo)?.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    std::fs::rename(&partial, path)?;
    Ok(())
}
