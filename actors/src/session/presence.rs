//! Who is there: told when it changes, to everybody who is.

use std::time::Duration;

use actix::prelude::*;
use hubbub_protocol::server::Presence;
use hubbub_protocol::{Principal, ServerFrame, SessionId};

use super::{Live, Session, encode};

/// Presence is told this much later, so that a crowd that joins at once is told once.
const PRESENCE_AFTER: Duration = Duration::from_millis(250);

impl Session {
    /// Tells everybody who came and who left since the last time.
    pub(super) fn tell_presence_later(&mut self, ctx: &mut Context<Self>) {
        let Ok(live) = self.live() else { return };
        // Nobody is there to be told, now or later: forget who was.
        if live.devices.is_empty() {
            live.present = Vec::new();
        }
        if live.presence_scheduled || live.devices.is_empty() {
            return;
        }
        live.presence_scheduled = true;
        ctx.run_later(PRESENCE_AFTER, |session, ctx| {
            let id = session.id;
            let Ok(live) = session.live() else { return };
            live.presence_scheduled = false;
            let frames = live.presence_changes(id);
            let told = frames
                .iter()
                .filter(|frame| live.feed.mention(encode(frame)))
                .count();
            if told > 0 {
                session.flush_now(ctx);
            }
        });
    }
}

impl Live {
    fn presence_changes(&mut self, session: SessionId) -> Vec<ServerFrame> {
        let mut present: Vec<Principal> = Vec::new();
        for device in &self.devices {
            if !present.contains(&device.who) {
                present.push(device.who.clone());
            }
        }
        let devices = u32::try_from(self.devices.len()).unwrap_or(u32::MAX);
        let frame = |who: &Principal, online| {
            ServerFrame::Presence(Presence {
                session,
                who: who.clone(),
                online,
                devices,
            })
        };
        let came = present
            .iter()
            .filter(|who| !self.present.contains(who))
            .map(|w| frame(w, true));
        let left = self
            .present
            .iter()
            .filter(|who| !present.contains(who))
            .map(|w| frame(w, false));
        let frames = came.chain(left).collect();
        self.present = present;
        frames
    }
}
