//! Who is there: told when it changes, to everybody who is.

use std::time::Duration;

use actix::prelude::*;
use hubbub_protocol::server::Presence;
use hubbub_protocol::{Principal, ServerFrame};

use super::Session;
use super::live::{Flush, Live, Task};

/// Presence is told this much later, so that a crowd that joins at once is told once.
const PRESENCE_AFTER: Duration = Duration::from_millis(250);

impl Live {
    /// Tells everybody who came and who left since the last time.
    pub(super) fn tell_presence_later(&mut self, ctx: &mut Context<Session>) {
        if self.devices.is_empty() {
            // Nobody is there to be told, now or later: forget who was.
            self.present = Vec::new();
            return;
        }
        self.once(Task::TellPresence, PRESENCE_AFTER, ctx, |live, _| {
            for frame in live.presence_changes() {
                live.mention(frame, Flush::Now);
            }
        });
    }

    fn presence_changes(&mut self) -> Vec<ServerFrame> {
        let session = self.record.session;
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
