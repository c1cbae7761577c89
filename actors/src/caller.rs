//! Who acts, and what they may do: one type, and one table. Asked at every door.

use hubbub_protocol::{BotId, ErrorCode, Principal, PrincipalKind, Role, TenantId, VisitorId};

use crate::rejection::Rejection;

/// On whose behalf something is asked. Known from credentials alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The tenant of the credentials.
    pub tenant: TenantId,
    /// Who it is.
    pub who: Who,
    /// Their name, for people to read; may be empty.
    pub name: String,
}

/// Kinds of callers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// A person who chats through a bot's widget.
    Visitor {
        /// As the server knows them.
        id: VisitorId,
        /// Whose widget it is.
        bot: BotId,
    },
    /// A person whom the tenant's own site knows.
    User {
        /// As the server knows them.
        id: VisitorId,
        /// As the site knows them.
        external: String,
    },
    /// A person of the tenant's staff.
    Operator {
        /// As the tenant knows them.
        id: String,
        /// What the tenant lets them do.
        role: OperatorRole,
    },
    /// A program of the tenant.
    Key {
        /// The API key's public id.
        id: String,
    },
}

/// What a tenant lets its staff do, from the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OperatorRole {
    /// Reads along.
    Viewer,
    /// Writes to visitors.
    Agent,
    /// Also changes bots.
    Admin,
    /// As an admin.
    Owner,
}

impl OperatorRole {
    /// All of them, from the least.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Agent, Self::Admin, Self::Owner];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Agent => "agent",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }

    /// The role of this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

/// What is asked for. What a caller may see is another question: [`Caller::may_see`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// To open a session, to write in it, and to stop a reply.
    Chat,
    /// To create, read and change bots.
    ManageBots,
    /// To see what all visitors of the tenant ask for.
    ReadAll,
    /// To take a session over, to pass it on, and to give it back to the bot.
    Handle,
    /// To write notes for other operators. Reading them takes [`ReadAll`](Self::ReadAll).
    Note,
    /// To ask for a person.
    Escalate,
    /// To vouch for people of the tenant's own.
    IssueTickets,
    /// To say that an answer is not wanted at once.
    ChooseClass,
    /// To see what answers took and cost.
    ReadUsage,
}

impl Caller {
    /// Who may do what: all of it.
    pub fn may(&self, permission: Permission) -> bool {
        match permission {
            Permission::Chat => self
                .who
                .rank()
                .is_none_or(|role| role >= OperatorRole::Agent),
            Permission::ManageBots | Permission::ReadUsage => match &self.who {
                Who::Key { .. } => true,
                who => who.rank().is_some_and(|role| role >= OperatorRole::Admin),
            },
            Permission::ReadAll => self.visitor().is_none(),
            Permission::Handle | Permission::Note => self
                .who
                .rank()
                .is_some_and(|role| role >= OperatorRole::Agent),
            Permission::Escalate => self.visitor().is_some(),
            Permission::IssueTickets | Permission::ChooseClass => {
                matches!(self.who, Who::Key { .. })
            }
        }
    }

    /// [`may`](Self::may), as a refusal.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn check(&self, permission: Permission) -> Result<(), Rejection> {
        let refusal = match permission {
            Permission::Chat => "your role only reads along",
            Permission::ReadAll => "this is for the tenant's own staff and programs",
            Permission::Handle => "only operators who may write handle sessions",
            Permission::Note => "only operators who may write leave notes",
            Permission::Escalate => "only the visitor asks for a person",
            Permission::ReadUsage => "only the tenant's administrators and programs see this",
            Permission::ManageBots | Permission::IssueTickets | Permission::ChooseClass => {
                "this needs an API key"
            }
        };
        if self.may(permission) {
            Ok(())
        } else {
            Err(Rejection::new(ErrorCode::Forbidden, refusal))
        }
    }

    /// Whether they may know of a session of this visitor with this bot.
    pub fn may_see(&self, visitor: Option<VisitorId>, bot: BotId) -> bool {
        let is_own = self.visitor().is_none_or(|own| visitor == Some(own));
        is_own && self.bot().is_none_or(|only| only == bot)
    }

    /// Whose sessions they are confined to; `None`: they see all of the tenant's.
    pub fn visitor(&self) -> Option<VisitorId> {
        match self.who {
            Who::Visitor { id, .. } | Who::User { id, .. } => Some(id),
            Who::Operator { .. } | Who::Key { .. } => None,
        }
    }

    /// The bot they are confined to; `None`: every bot of the tenant is for them.
    pub fn bot(&self) -> Option<BotId> {
        match self.who {
            Who::Visitor { bot, .. } => Some(bot),
            Who::User { .. } | Who::Operator { .. } | Who::Key { .. } => None,
        }
    }

    /// An operator's id.
    pub fn operator(&self) -> Option<&str> {
        match &self.who {
            Who::Operator { id, .. } => Some(id),
            Who::Visitor { .. } | Who::User { .. } | Who::Key { .. } => None,
        }
    }

    /// The public id of the API key they came with.
    pub fn key(&self) -> Option<&str> {
        match &self.who {
            Who::Key { id } => Some(id),
            Who::Visitor { .. } | Who::User { .. } | Who::Operator { .. } => None,
        }
    }

    /// In which role they write. A key writes what visitors of the tenant's own programs say.
    pub fn role(&self) -> Role {
        match self.who {
            Who::Visitor { .. } | Who::User { .. } | Who::Key { .. } => Role::Visitor,
            Who::Operator { .. } => Role::Operator,
        }
    }

    /// As others see them.
    pub fn principal(&self) -> Principal {
        let (kind, id) = match &self.who {
            Who::Visitor { id, .. } => (PrincipalKind::Visitor, id.to_string()),
            Who::User { external, .. } => (PrincipalKind::User, external.clone()),
            Who::Operator { id, .. } => (PrincipalKind::Operator, id.clone()),
            Who::Key { id } => (PrincipalKind::ApiKey, id.clone()),
        };
        let name = self.name.clone();
        Principal { kind, id, name }
    }
}

impl Who {
    /// An operator's role; `None` for everybody else.
    fn rank(&self) -> Option<OperatorRole> {
        match self {
            Self::Operator { role, .. } => Some(*role),
            Self::Visitor { .. } | Self::User { .. } | Self::Key { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may(who: Who) -> [bool; 7] {
        let caller = Caller {
            tenant: TenantId::generate(),
            who,
            name: String::new(),
        };
        let asked = [
            Permission::Chat,
            Permission::ReadAll,
            Permission::Handle,
            Permission::Escalate,
            Permission::ManageBots,
            Permission::IssueTickets,
            Permission::ReadUsage,
        ];
        asked.map(|permission| {
            assert_eq!(caller.check(permission).is_ok(), caller.may(permission));
            caller.may(permission)
        })
    }

    #[test]
    fn nobody_has_more_than_their_kind_and_role_give() {
        let id = VisitorId::generate();
        let bot = BotId::generate();
        let visitors = [true, false, false, true, false, false, false];
        assert_eq!(may(Who::Visitor { id, bot }), visitors);
        let external = "ada".to_owned();
        assert_eq!(may(Who::User { id, external }), visitors);
        let operator = |role| Who::Operator {
            id: "bo".to_owned(),
            role,
        };
        let viewers = [false, true, false, false, false, false, false];
        assert_eq!(may(operator(OperatorRole::Viewer)), viewers);
        let agents = [true, true, true, false, false, false, false];
        assert_eq!(may(operator(OperatorRole::Agent)), agents);
        let admins = [true, true, true, false, true, false, true];
        assert_eq!(may(operator(OperatorRole::Admin)), admins);
        assert_eq!(may(operator(OperatorRole::Owner)), admins);
        let id = "key".to_owned();
        let keys = [true, true, false, false, true, true, true];
        assert_eq!(may(Who::Key { id }), keys);
    }
}
