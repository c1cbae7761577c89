//! A tenant with a bot and sessions, and entries for batches.

use hubbub_actors::ports::{
    Append, AppendRefusal, Appended, Claim, Fence, FinishedReply, MessageStore as _, NewMessage,
    NewSession, OwedReply, PageSize, ReplyEnd, StoredMessage,
};
use hubbub_protocol::{
    BotId, ClientMessageId, Escalation, NodeId, ReplyId, Role, SessionId, TenantId, Usage,
};
use hubbub_storage::bots::NewBot;
use hubbub_storage::{PostgresMessageStore, Storage, bots, tenants};

use crate::postgres::{self, TestDatabase};

pub struct Fixture {
    pub database: TestDatabase,
    pub storage: Storage,
    pub store: PostgresMessageStore,
    pub tenant: TenantId,
    pub bot: BotId,
}

impl Fixture {
    pub async fn new() -> Self {
        let database = postgres::database().await;
        let storage = database.storage().await;
        let (tenant, bot) = seed(&storage).await;
        Self {
            store: storage.message_store(),
            database,
            storage,
            tenant,
            bot,
        }
    }

    pub async fn session(&self) -> SessionId {
        open(&self.store, self.tenant, self.bot).await
    }
}

/// A tenant with a bot.
pub async fn seed(storage: &Storage) -> (TenantId, BotId) {
    let (tenant, bot) = (TenantId::generate(), BotId::generate());
    let scope = storage.scope(tenant).await.unwrap();
    tenants::insert(&scope, "Acme", 1).await.unwrap();
    bots::insert(&scope, &new_bot(bot)).await.unwrap();
    scope.commit().await.unwrap();
    (tenant, bot)
}

pub fn new_bot(id: BotId) -> NewBot {
    NewBot {
        id,
        name: String::from("Robo"),
        prompt: String::from("Be kind."),
        route: vec![],
        model: None,
        replies: true,
        max_output_tokens: 512,
        escalation: Escalation::default(),
        answer_cache_s: 0,
        allowed_origins: vec![String::from("https://acme.example")],
    }
}

pub async fn open(store: &PostgresMessageStore, tenant: TenantId, bot: BotId) -> SessionId {
    let session = SessionId::generate();
    let new = NewSession {
        tenant,
        session,
        bot,
        visitor: None,
    };
    store.open_session(new).await.unwrap().session
}

/// A page of so many messages, whatever their size.
pub fn page(messages: u32) -> PageSize {
    PageSize {
        messages,
        bytes: u32::MAX,
    }
}

pub fn message(tenant: TenantId, session: SessionId, text: &str) -> NewMessage {
    NewMessage {
        tenant,
        session,
        id: ClientMessageId::generate(),
        role: Role::Visitor,
        author: String::from("Ada"),
        text: String::from(text),
        metadata: None,
        reply: None,
    }
}

pub fn end(asked: &NewMessage, end: ReplyEnd) -> FinishedReply {
    let owed = asked.reply.unwrap();
    FinishedReply {
        tenant: asked.tenant,
        session: asked.session,
        reply: owed.reply,
        node: owed.node,
        claim: Claim::FIRST,
        end,
        text: String::from("The answer."),
        author: String::from("Robo"),
        model: Some(String::from("m-1")),
        usage: Some(Usage {
            input_tokens: 7,
            output_tokens: 3,
            cached_input_tokens: 2,
            estimated: false,
        }),
        attempts: Vec::new(),
        first_token_ms: Some(40),
        latency_ms: 90,
    }
}

/// A message that asks `node` for a reply.
pub fn question(tenant: TenantId, session: SessionId, node: NodeId) -> NewMessage {
    NewMessage {
        reply: Some(OwedReply {
            reply: ReplyId::generate(),
            node,
            fence: Fence::default(),
        }),
        ..message(tenant, session, "Why?")
    }
}

/// What a stored message came to.
pub fn stored(result: &Result<Appended, AppendRefusal>) -> (&StoredMessage, bool, Option<ReplyId>) {
    match result {
        Ok(Appended::Message {
            message,
            duplicate,
            reply,
            ..
        }) => (message, *duplicate, *reply),
        other => panic!("not a message: {other:?}"),
    }
}

pub async fn append_one(
    store: &PostgresMessageStore,
    entry: Append,
) -> Result<Appended, AppendRefusal> {
    store.append(vec![entry]).await.unwrap().remove(0)
}
