// A chat with everything that it hears.

import { Chat } from "./chat.ts";
import type { Environment } from "./environment.ts";
import { onFrame, onState } from "./inbound.ts";
import { forget, onTicket } from "./session.ts";

export function openChat(environment: Environment, origin: string, bot: string): Chat {
  return new Chat(environment, origin, bot, { onRefused: forget, onTicket, onState, onFrame });
}
