// The golden frames: read as the wire carries them, and every kind of frame has one. That their
// types fit is what `npm run check` proves on tests/generated/golden.ts.

import assert from "node:assert/strict";
import { test } from "node:test";
import { decode, type ServerFrame } from "../../src/protocol.ts";
import { client, server } from "../generated/golden.ts";

test("every golden server frame is read as it is", () => {
  for (const [name, frame] of Object.entries(server)) {
    assert.deepEqual(decode(JSON.stringify(frame)), frame, name);
  }
});

test("every kind of frame has a golden one", () => {
  const kinds = (frames: Record<string, { type: string }>) =>
    [...new Set(Object.values(frames).map(({ type }) => type))].sort().join(" ");
  assert.equal(
    kinds(client),
    "escalate join leave note read release send stop takeover transfer typing",
  );
  assert.equal(
    kinds(server),
    "ack bye delta error handler joined left message note presence read reply typing welcome",
  );
  const states = Object.values(server).flatMap((frame: ServerFrame) =>
    frame.type === "reply" ? [frame.state] : [],
  );
  assert.deepEqual([...new Set(states)].sort(), ["cancelled", "failed", "queued", "started"]);
});

test("offsets of the golden deltas count UTF-16 code units", () => {
  const first = server["server.delta.json"];
  const later = server["server.delta.later.json"];
  assert.ok(first?.type === "delta" && later?.type === "delta");
  assert.equal(later.offset, first.offset + first.text.length);
});

test("what is no frame is ignored", () => {
  for (const text of ["", "{", "null", "7", "[]", '"x"', "{}", '{"type":7}']) {
    assert.equal(decode(text), null, text);
  }
});
