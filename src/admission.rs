//! What strangers may ask for: how many tickets and sessions in how much time, by address, by bot and by
//! visitor.
//!
//! Everybody may have a ticket, and with it a visitor's sessions, without any proof of who they are, and
//! each is a row. Nothing here outlives the process: a restart begins with full allowances.

pub mod address;
mod rate;

use std::net::IpAddr;

use hubbub_actors::{Caller, Rejection};
use hubbub_protocol::{BotId, ErrorCode};

use address::subnet;
use rate::Rate;

/// How much is allowed in a minute; as much at once, after a pause.
#[derive(Clone, Copy, Debug)]
pub struct Allowances {
    /// Tickets of the widget, for one address.
    pub tickets_per_address: u32,
    /// Tickets of the widget, for one bot.
    pub tickets_per_bot: u32,
    /// Sessions that visitors open, for one address.
    pub sessions_per_address: u32,
    /// Sessions that one visitor opens.
    pub sessions_per_visitor: u32,
}

/// The allowances, and what is used of them.
pub struct Rates {
    tickets_per_address: Rate,
    tickets_per_bot: Rate,
    sessions_per_address: Rate,
    sessions_per_visitor: Rate,
}

impl Rates {
    /// Nothing is used yet.
    pub fn new(allowed: Allowances) -> Self {
        Self {
            tickets_per_address: Rate::per_minute(allowed.tickets_per_address),
            tickets_per_bot: Rate::per_minute(allowed.tickets_per_bot),
            sessions_per_address: Rate::per_minute(allowed.sessions_per_address),
            sessions_per_visitor: Rate::per_minute(allowed.sessions_per_visitor),
        }
    }

    /// Counts a ticket of a bot's widget. The address comes first: who is over their own allowance uses
    /// nothing of the bot's.
    ///
    /// # Errors
    /// `rate_limited`, with the wait.
    pub fn admit_ticket(&self, address: IpAddr, bot: BotId) -> Result<(), Rejection> {
        let of_address = "this address asks for too many tickets";
        limited(self.tickets_per_address.check(&subnet(address)), of_address)?;
        let of_bot = "too many visitors come to this assistant at once";
        limited(self.tickets_per_bot.check(&bot), of_bot)
    }

    /// Counts a session that a caller opens. Programs with an API key are not strangers: their tenant's
    /// limits hold for them.
    ///
    /// # Errors
    /// `rate_limited`, with the wait.
    pub fn admit_session(&self, address: IpAddr, caller: &Caller) -> Result<(), Rejection> {
        let Some(visitor) = caller.visitor() else {
            return Ok(());
        };
        let of_visitor = self.sessions_per_visitor.check(&(caller.tenant, visitor));
        limited(of_visitor, "this visitor opens too many conversations")?;
        let of_address = "this address opens too many conversations";
        limited(
            self.sessions_per_address.check(&subnet(address)),
            of_address,
        )
    }

    /// Frees what nobody has used for a while.
    pub fn forget_unused(&self) {
        for rate in [
            &self.tickets_per_address,
            &self.tickets_per_bot,
            &self.sessions_per_address,
            &self.sessions_per_visitor,
        ] {
            rate.forget_unused();
        }
    }
}

fn limited(
    checked: Result<(), std::time::Duration>,
    message: &'static str,
) -> Result<(), Rejection> {
    checked.map_err(|wait| {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(50);
        Rejection::later(ErrorCode::RateLimited, message, wait_ms)
    })
}

#[cfg(test)]
mod tests {
    use hubbub_actors::Who;
    use hubbub_protocol::{TenantId, VisitorId};

    use super::*;

    fn rates(allowed: u32) -> Rates {
        Rates::new(Allowances {
            tickets_per_address: allowed,
            tickets_per_bot: allowed + 2,
            sessions_per_address: allowed + 2,
            sessions_per_visitor: allowed,
        })
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn caller(visitor: Option<VisitorId>) -> Caller {
        Caller {
            tenant: TenantId::generate(),
            who: match visitor {
                Some(id) => Who::Visitor {
                    id,
                    bot: BotId::generate(),
                },
                None => Who::Key { id: String::new() },
            },
            name: String::new(),
        }
    }

    // X2
    #[test]
    fn tickets_are_counted_by_address_and_by_bot() {
        let (rates, bot) = (rates(3), BotId::generate());
        let (one, other) = (address("2001:db8::1"), address("2001:db8:0:1::1"));
        for _ in 0..3 {
            rates.admit_ticket(one, bot).unwrap();
        }
        // Another address of the same network, or another bot, is no way around it.
        for (address, bot) in [
            (one, bot),
            (address("2001:db8::ffff"), bot),
            (one, BotId::generate()),
        ] {
            let refused = rates.admit_ticket(address, bot).unwrap_err();
            assert_eq!(refused.code, ErrorCode::RateLimited);
            assert!((50..=20_000).contains(&refused.retry_after_ms.unwrap()));
        }
        // The refused ones used nothing of the bot's own: two are left of its five.
        rates.admit_ticket(other, bot).unwrap();
        rates.admit_ticket(other, bot).unwrap();
        rates.admit_ticket(other, bot).unwrap_err();
        rates
            .admit_ticket(address("192.0.2.1"), BotId::generate())
            .unwrap();
    }

    // X3
    #[test]
    fn sessions_are_counted_by_visitor_and_by_address_and_not_for_keys() {
        let (rates, home) = (rates(3), address("192.0.2.1"));
        let visitor = caller(Some(VisitorId::generate()));
        for _ in 0..3 {
            rates.admit_session(home, &visitor).unwrap();
        }
        let elsewhere = address("192.0.2.2");
        for address in [home, elsewhere] {
            let refused = rates.admit_session(address, &visitor).unwrap_err();
            assert_eq!(refused.code, ErrorCode::RateLimited);
            assert!(refused.retry_after_ms.is_some());
        }
        // Five visitors of one address are as many as one visitor may not be.
        let mut refused = 0;
        for _ in 0..5 {
            let visitor = caller(Some(VisitorId::generate()));
            refused += u32::from(rates.admit_session(home, &visitor).is_err());
        }
        assert_eq!(refused, 3);
        for _ in 0..100 {
            rates.admit_session(home, &caller(None)).unwrap();
        }
    }
}
