-- Two counters that were one. `fence` stays what a reply was asked under: its session's. `claim` counts the
-- nodes that took it over, which raised the fence until now.

ALTER TABLE replies ADD COLUMN claim int8 NOT NULL DEFAULT 0
  CONSTRAINT replies_claim_check CHECK (claim >= 0);
-- Whoever migrates owns the table, but forced row-level security would show it no row.
ALTER TABLE replies NO FORCE ROW LEVEL SECURITY;
UPDATE replies SET claim = fence, fence = 0 WHERE fence > 0;
ALTER TABLE replies FORCE ROW LEVEL SECURITY;
GRANT SELECT (claim), UPDATE (claim) ON replies TO hubbub_writer;
REVOKE UPDATE (fence) ON replies FROM hubbub_writer;
