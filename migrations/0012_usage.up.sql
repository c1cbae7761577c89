-- The ledger: what every attempt took and cost, the prices it is reckoned with, and budgets.
--
-- Money is whole micro-cents (a millionth of a US cent). Nothing here refers to a session or a bot by a
-- foreign key: what was used stays on the bill after they are deleted.

CREATE TABLE prices (
  id           int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  upstream     text NOT NULL CHECK (upstream <> ''),
  -- '': every model of the upstream that has no price of its own.
  model        text NOT NULL DEFAULT '',
  -- Micro-cents per million tokens: 100,000,000 are one dollar.
  input        int8 NOT NULL CHECK (input BETWEEN 0 AND 1000000000000),
  cached_input int8 NOT NULL CHECK (cached_input BETWEEN 0 AND 1000000000000),
  output       int8 NOT NULL CHECK (output BETWEEN 0 AND 1000000000000),
  -- Until the next one of the same model begins.
  valid_from   timestamptz NOT NULL DEFAULT now(),
  UNIQUE (upstream, model, valid_from)
);
-- Never changed nor deleted: attempts refer to them.
GRANT SELECT, INSERT ON prices TO hubbub_app;
GRANT SELECT ON prices TO hubbub_writer;

CREATE TABLE attempts (
  tenant_id           uuid NOT NULL,
  reply_id            uuid NOT NULL,
  -- Under which claim on the reply: a node that took it over begins at 1 again.
  claim               int8 NOT NULL CHECK (claim >= 0),
  number              int4 NOT NULL CHECK (number > 0),
  session_id          uuid NOT NULL,
  bot_id              uuid NOT NULL,
  visitor_id          uuid,
  upstream            text NOT NULL,
  model               text NOT NULL,
  outcome             text NOT NULL CHECK (outcome IN ('answered', 'failed', 'cancelled')),
  -- reported by the upstream, counted (it took nothing), or estimated from the texts.
  source              text NOT NULL CHECK (source IN ('reported', 'counted', 'estimated')),
  input_tokens        int8 NOT NULL CHECK (input_tokens >= 0),
  -- Of input_tokens, those the upstream read from its cache.
  cached_input_tokens int8 NOT NULL CHECK (cached_input_tokens BETWEEN 0 AND input_tokens),
  output_tokens       int8 NOT NULL CHECK (output_tokens >= 0),
  -- NULL: the model has no price, and cost nothing.
  price_id            int8 REFERENCES prices,
  cost                int8 NOT NULL CHECK (cost >= 0),
  started_at          timestamptz NOT NULL,
  ended_at            timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, reply_id, claim, number)
);
CREATE INDEX attempts_ended_idx ON attempts (tenant_id, ended_at);
ALTER TABLE attempts ENABLE ROW LEVEL SECURITY;
ALTER TABLE attempts FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON attempts TO hubbub_app
  USING (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid));
CREATE POLICY writer_insert ON attempts FOR INSERT TO hubbub_writer WITH CHECK (true);
CREATE POLICY writer_find ON attempts FOR SELECT TO hubbub_writer USING (true);
GRANT SELECT ON attempts TO hubbub_app;
GRANT SELECT, INSERT ON attempts TO hubbub_writer;

CREATE TABLE budgets (
  tenant_id uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
  id        uuid NOT NULL,
  -- Of the tenant, of one bot, or of each of its visitors.
  scope     text NOT NULL CHECK (scope IN ('tenant', 'bot', 'visitor')),
  bot_id    uuid,
  -- Calendar days and months, in UTC.
  period    text NOT NULL CHECK (period IN ('day', 'month')),
  amount    int8 NOT NULL CHECK (amount >= 0),
  PRIMARY KEY (tenant_id, id),
  CONSTRAINT budgets_key UNIQUE NULLS NOT DISTINCT (tenant_id, scope, bot_id, period),
  CONSTRAINT budgets_bot_fkey FOREIGN KEY (tenant_id, bot_id) REFERENCES bots ON DELETE CASCADE,
  CHECK ((scope = 'bot') = (bot_id IS NOT NULL))
);
CREATE INDEX budgets_bot_idx ON budgets (tenant_id, bot_id);
ALTER TABLE budgets ENABLE ROW LEVEL SECURITY;
ALTER TABLE budgets FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON budgets TO hubbub_app
  USING (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid));
CREATE POLICY writer_find ON budgets FOR SELECT TO hubbub_writer USING (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON budgets TO hubbub_app;
GRANT SELECT ON budgets TO hubbub_writer;

-- The sum of the attempts that a budget covers, kept with each of them, so that nobody has to add them up.
CREATE TABLE spending (
  tenant_id    uuid NOT NULL,
  budget_id    uuid NOT NULL,
  -- The tenant, the bot or the visitor.
  subject_id   uuid NOT NULL,
  period_start timestamptz NOT NULL,
  spent        int8 NOT NULL CHECK (spent >= 0),
  PRIMARY KEY (tenant_id, budget_id, subject_id, period_start),
  FOREIGN KEY (tenant_id, budget_id) REFERENCES budgets ON DELETE CASCADE
);
ALTER TABLE spending ENABLE ROW LEVEL SECURITY;
ALTER TABLE spending FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON spending TO hubbub_app
  USING (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid));
CREATE POLICY writer_find ON spending FOR SELECT TO hubbub_writer USING (true);
CREATE POLICY writer_insert ON spending FOR INSERT TO hubbub_writer WITH CHECK (true);
CREATE POLICY writer_add ON spending FOR UPDATE TO hubbub_writer USING (true) WITH CHECK (true);
GRANT SELECT, INSERT ON spending TO hubbub_app;
GRANT SELECT, INSERT, UPDATE (spent) ON spending TO hubbub_writer;

-- Set aside for the time it is pending; what it came to is in the ledger once it ended.
ALTER TABLE replies ADD COLUMN reserved int8 NOT NULL DEFAULT 0
  CONSTRAINT replies_reserved_check CHECK (reserved >= 0);
GRANT UPDATE (reserved) ON replies TO hubbub_app;
CREATE INDEX replies_reserved_idx ON replies (tenant_id) WHERE state = 'pending' AND reserved > 0;

-- The price of the model, else of its upstream, that was valid at that moment; no row if there is none.
-- Bodies in standard SQL: they are bound to their tables now, and inlined where they are used.
CREATE FUNCTION price_at(of_upstream text, of_model text, instant timestamptz) RETURNS SETOF prices
LANGUAGE sql STABLE BEGIN ATOMIC
  SELECT p.* FROM prices p
  WHERE p.upstream = of_upstream AND p.model IN (of_model, '') AND p.valid_from <= instant
  ORDER BY p.model DESC, p.valid_from DESC LIMIT 1;
END;
-- Rounded once, to the nearest micro-cent. Without a price it is nothing.
CREATE FUNCTION cost_of(price prices, input_tokens int8, cached_tokens int8, output_tokens int8)
RETURNS int8 LANGUAGE sql IMMUTABLE
RETURN coalesce(round((
  (input_tokens - cached_tokens)::numeric * (price).input
  + cached_tokens::numeric * (price).cached_input
  + output_tokens::numeric * (price).output) / 1000000)::int8, 0);

-- Held while a new budget counts what was spent before it. As the owner: the server's role may only read.
CREATE FUNCTION lock_attempts() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
BEGIN
  LOCK TABLE public.attempts IN SHARE MODE;
END $$;
REVOKE ALL ON FUNCTION lock_attempts() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION lock_attempts() TO hubbub_app;

-- What the upstream read from its cache, beside the rest of what an answer took.
ALTER TABLE messages ADD COLUMN cached_input_tokens int8;
GRANT SELECT (cached_input_tokens) ON messages TO hubbub_writer;
