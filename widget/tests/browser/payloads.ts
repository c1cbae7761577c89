// Text that has broken chat widgets, or could: markup and broken markup, markup that a parser mends
// into something else, markdown that becomes markup, addresses, control characters, nesting, template
// syntax. Made from lists of vectors and the contexts they are put into. The tests against the real
// server use it too.

import { MARKUP } from "./payloads/markup.ts";
import { TEXT } from "./payloads/text.ts";

export const PAYLOADS: string[] = [...new Set([...MARKUP, ...TEXT])];
