//! Who handles the session: an operator takes it over, passes it on or gives it back to the bot; a visitor asks
//! for a person.
//!
//! The fence is committed first. From then on nothing of the bot is shown that was begun before, and nothing of
//! the bot begins.

use actix::prelude::*;
use hubbub_protocol::{ErrorCode, HandlerFrame, ServerFrame, SessionHandler, Timestamp};

use super::live::Live;
use super::{Answer, Session};
use crate::caller::{Caller, OperatorRole, Permission, Who};
use crate::ports::{Fence, HandlerChange, ReplyEnd};
use crate::rejection::Rejection;

/// Has somebody else handle the session.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct HandleSession {
    pub(super) caller: Caller,
    pub(super) what: Handling,
    pub(super) answer: Answer<()>,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handling {
    /// The caller handles it.
    TakeOver {
        /// Who the caller expects to handle it now.
        from: Option<SessionHandler>,
    },
    /// The bot handles it again.
    Release {
        /// What the bot is told, and nobody else.
        summary: Option<String>,
    },
    /// An operator with this id handles it, or, for `waiting`, whoever takes it over.
    Transfer {
        /// To whom.
        to: String,
    },
    /// A person is to handle it.
    Escalate {
        /// Why, in the caller's words.
        reason: Option<String>,
    },
}

/// To whom a session is transferred that waits for whoever takes it over.
const WAITING: &str = "waiting";

impl Handler<HandleSession> for Session {
    type Result = ();

    fn handle(&mut self, command: HandleSession, ctx: &mut Self::Context) {
        let HandleSession {
            caller,
            what,
            answer,
        } = command;
        self.serve(&caller, answer, ctx, |live, answer, ctx| {
            // It stays what it was until somebody gives the session back again.
            let summary = match &what {
                Handling::Release { summary } => summary.clone(),
                _ => live.record.summary.clone(),
            };
            match decide(&live.record.handler, &caller, what) {
                Ok(Some(handler)) => live.change_handler(handler, summary, ctx, |_, told, _| {
                    drop(answer.send(told));
                }),
                // It is as it is asked to be.
                Ok(None) => drop(answer.send(Ok(()))),
                Err(rejection) => drop(answer.send(Err(rejection))),
            }
        });
    }
}

/// Who handles the session next; `None`: who handles it now.
fn decide(
    now: &SessionHandler,
    caller: &Caller,
    what: Handling,
) -> Result<Option<SessionHandler>, Rejection> {
    let needed = match what {
        Handling::Escalate { .. } => Permission::Escalate,
        _ => Permission::Handle,
    };
    caller.check(needed)?;
    let conflict = |message| Err(Rejection::new(ErrorCode::Conflict, message));
    let operator = caller.operator();
    let is_own =
        matches!(now, SessionHandler::Operator { id, .. } if Some(id.as_str()) == operator);
    let is_free = !matches!(now, SessionHandler::Operator { .. });
    let since = Timestamp::now();
    match what {
        Handling::TakeOver { from: Some(from) } if !is_same(&from, now) => {
            conflict("somebody else handles this conversation")
        }
        Handling::TakeOver { from } if is_free || is_own || from.is_some() => {
            let id = operator.unwrap_or_default().to_owned();
            let name = caller.name.clone();
            let own = SessionHandler::Operator { id, name };
            // Whom it was transferred to has no name until they come.
            Ok((own != *now).then_some(own))
        }
        Handling::TakeOver { .. } => conflict("another operator handles this conversation"),
        Handling::Release { .. } if *now == SessionHandler::Bot => Ok(None),
        Handling::Release { .. } if is_own || is_free || leads(caller) => {
            Ok(Some(SessionHandler::Bot))
        }
        Handling::Transfer { to } if is_own || is_free || leads(caller) => {
            Ok(Some(if to == WAITING {
                let reason = None;
                SessionHandler::Waiting { since, reason }
            } else {
                let name = String::new();
                SessionHandler::Operator { id: to, name }
            }))
        }
        Handling::Release { .. } | Handling::Transfer { .. } => {
            conflict("another operator handles this conversation")
        }
        Handling::Escalate { reason } if *now == SessionHandler::Bot => {
            Ok(Some(SessionHandler::Waiting { since, reason }))
        }
        // Somebody comes, or is there.
        Handling::Escalate { .. } => Ok(None),
    }
}

/// Whether two are the same handler: by who it is, not by name or since when.
fn is_same(one: &SessionHandler, other: &SessionHandler) -> bool {
    match (one, other) {
        (SessionHandler::Bot, SessionHandler::Bot)
        | (SessionHandler::Waiting { .. }, SessionHandler::Waiting { .. }) => true,
        (SessionHandler::Operator { id: one, .. }, SessionHandler::Operator { id: other, .. }) => {
            one == other
        }
        _ => false,
    }
}

/// Whether they may take a session from another operator's hands without being asked to.
fn leads(caller: &Caller) -> bool {
    matches!(caller.who, Who::Operator { role, .. } if role >= OperatorRole::Admin)
}

impl Live {
    /// Has somebody else handle the session, and then goes on.
    pub(super) fn change_handler(
        &mut self,
        handler: SessionHandler,
        summary: Option<String>,
        ctx: &mut Context<Session>,
        then: impl FnOnce(&mut Self, Result<(), Rejection>, &mut Context<Session>) + 'static,
    ) {
        let change = HandlerChange {
            tenant: self.record.tenant,
            session: self.record.session,
            fence: self.turns.fence(),
            handler: handler.clone(),
            summary: summary.clone(),
        };
        let store = self.node.store.clone();
        let changed = async move { store.change_handler(change).await };
        Self::spawn(ctx, changed, move |live, changed, ctx| {
            let told = match changed {
                Ok(Some(fence)) => {
                    live.handed_over(handler, summary, fence, ctx);
                    Ok(())
                }
                Ok(None) => {
                    live.reconcile_later(std::time::Duration::ZERO, ctx);
                    Err(Rejection::new(
                        ErrorCode::Conflict,
                        "somebody else came to handle this conversation just now",
                    ))
                }
                Err(error) => {
                    // Perhaps it is committed all the same.
                    live.reconcile_later(std::time::Duration::ZERO, ctx);
                    Err(error.into())
                }
            };
            live.settle(ctx);
            then(live, told, ctx);
        });
    }

    /// It is committed that somebody else handles the session: the bot falls silent, and all it was to
    /// answer gets its end.
    pub(super) fn handed_over(
        &mut self,
        handler: SessionHandler,
        summary: Option<String>,
        fence: Fence,
        ctx: &mut Context<Session>,
    ) {
        if fence <= self.turns.fence() {
            return;
        }
        let is_bots = handler == SessionHandler::Bot;
        let unanswered = self.turns.hand_over(fence, is_bots);
        self.record.handler = handler.clone();
        self.record.summary = summary;
        if self.end_answer(ReplyEnd::Cancelled, ctx).is_ok() {
            self.turns.withdraw();
        }
        for question in unanswered {
            self.end_unanswered(&question, ctx);
        }
        self.untold = Some(HandlerFrame {
            session: self.record.session,
            handler,
            fence: fence.0,
        });
        self.tell_handler();
    }

    /// Tells devices who handles the session. Not while an end is on its way that may be a message of the
    /// bot's: that one is told before, or is none.
    pub(super) fn tell_handler(&mut self) {
        if !self.turns.is_ending()
            && let Some(frame) = self.untold.take()
        {
            self.tell(ServerFrame::Handler(frame));
        }
    }
}

#[cfg(test)]
mod tests {
    use hubbub_protocol::{BotId, TenantId, VisitorId};

    use super::*;

    const RELEASE: Handling = Handling::Release { summary: None };

    fn caller(who: Who) -> Caller {
        Caller {
            tenant: TenantId::generate(),
            who,
            name: "Olga".to_owned(),
        }
    }

    fn operator(id: &str, role: OperatorRole) -> Caller {
        let id = id.to_owned();
        caller(Who::Operator { id, role })
    }

    fn handles(id: &str) -> SessionHandler {
        SessionHandler::Operator {
            id: id.to_owned(),
            name: "Olga".to_owned(),
        }
    }

    #[test]
    fn nobody_is_pushed_aside_by_accident() {
        let olga = operator("olga", OperatorRole::Agent);
        let take = |from| Handling::TakeOver { from };
        let bot = SessionHandler::Bot;
        assert_eq!(decide(&bot, &olga, take(None)), Ok(Some(handles("olga"))));
        assert_eq!(decide(&handles("olga"), &olga, take(None)), Ok(None));
        let nameless = SessionHandler::Operator {
            id: "olga".to_owned(),
            name: String::new(),
        };
        let named = decide(&nameless, &olga, take(None));
        assert_eq!(named, Ok(Some(handles("olga"))));
        let refused = decide(&handles("ivan"), &olga, take(None)).unwrap_err();
        assert_eq!(refused.code, ErrorCode::Conflict);
        let refused = decide(&handles("ivan"), &olga, take(Some(bot.clone()))).unwrap_err();
        assert_eq!(refused.code, ErrorCode::Conflict);
        let knowing = decide(&handles("ivan"), &olga, take(Some(handles("ivan"))));
        assert_eq!(knowing, Ok(Some(handles("olga"))));
        for what in [RELEASE, Handling::Transfer { to: "eve".into() }] {
            let refused = decide(&handles("ivan"), &olga, what.clone()).unwrap_err();
            assert_eq!(refused.code, ErrorCode::Conflict);
            let admin = operator("ada", OperatorRole::Admin);
            assert!(decide(&handles("ivan"), &admin, what).is_ok());
        }
    }

    #[test]
    fn visitors_ask_for_a_person_and_handle_nothing() {
        let (id, bot) = (VisitorId::generate(), BotId::generate());
        let visitor = caller(Who::Visitor { id, bot });
        let reason = Some("help".to_owned());
        let escalate = Handling::Escalate { reason };
        let waits = decide(&SessionHandler::Bot, &visitor, escalate.clone()).unwrap();
        assert!(matches!(waits, Some(SessionHandler::Waiting { .. })));
        assert_eq!(
            decide(&waits.unwrap(), &visitor, escalate.clone()),
            Ok(None)
        );
        assert_eq!(
            decide(&handles("olga"), &visitor, escalate.clone()),
            Ok(None)
        );
        let take = Handling::TakeOver { from: None };
        for (who, what) in [
            (&visitor, take.clone()),
            (&visitor, RELEASE),
            (&operator("olga", OperatorRole::Viewer), take),
            (&operator("olga", OperatorRole::Agent), escalate),
        ] {
            let refused = decide(&SessionHandler::Bot, who, what).unwrap_err();
            assert_eq!(refused.code, ErrorCode::Forbidden);
        }
    }
}
