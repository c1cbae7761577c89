-- Tenants and what belongs to them before anybody chats.
--
-- Every table with a tenant has forced row-level security and keys that start with the tenant. The
-- tenant of the transaction is read as (SELECT nullif(current_setting(…, true), '')::uuid): NULL when
-- unset, '' after an earlier transaction of the connection set it, and evaluated once a statement
-- because it is wrapped in SELECT (bare, it costs up to 40 %).

CREATE TABLE tenants (
  id                  uuid PRIMARY KEY,
  name                text NOT NULL CHECK (name <> ''),
  -- NULL: the server's configured default.
  max_connections     int4 CHECK (max_connections >= 0),
  max_sessions        int4 CHECK (max_sessions >= 0),
  messages_per_second int4 CHECK (messages_per_second >= 0),
  created_at          timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenants FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tenants TO hubbub_app
  USING (id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid));
GRANT SELECT, INSERT, UPDATE ON tenants TO hubbub_app;

CREATE TABLE bots (
  tenant_id         uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
  id                uuid NOT NULL,
  name              text NOT NULL CHECK (name <> ''),
  prompt            text NOT NULL DEFAULT '',
  -- Names of configured upstreams, in order; empty: the server's default route.
  route             text[] NOT NULL DEFAULT '{}',
  model             text,
  replies           boolean NOT NULL DEFAULT true,
  max_output_tokens int4 NOT NULL CHECK (max_output_tokens > 0),
  allowed_origins   text[] NOT NULL DEFAULT '{}',
  created_at        timestamptz NOT NULL DEFAULT now(),
  updated_at        timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id)
);
-- The public widget names its bot before the tenant is known. Ids are made by the server, so that
-- one is taken tells nobody anything.
CREATE UNIQUE INDEX bots_id_key ON bots (id);
ALTER TABLE bots ENABLE ROW LEVEL SECURITY;
ALTER TABLE bots FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON bots TO hubbub_app
  USING (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid));
CREATE POLICY lookup ON bots FOR SELECT TO hubbub_lookup USING (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON bots TO hubbub_app;
GRANT SELECT (tenant_id, id, allowed_origins) ON bots TO hubbub_lookup;

CREATE TABLE api_keys (
  tenant_id     uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
  -- The part of the key that is not secret: random, made by the server, unique in all tenants.
  key_id        text NOT NULL CHECK (key_id <> ''),
  -- The secret has enough entropy of its own; a slow hash would only slow the server.
  secret_sha256 bytea NOT NULL CHECK (length(secret_sha256) = 32),
  name          text NOT NULL,
  created_at    timestamptz NOT NULL DEFAULT now(),
  last_used_at  timestamptz,
  revoked_at    timestamptz,
  PRIMARY KEY (tenant_id, key_id)
);
CREATE UNIQUE INDEX api_keys_key_id_key ON api_keys (key_id);
ALTER TABLE api_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE api_keys FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON api_keys TO hubbub_app
  USING (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid));
CREATE POLICY lookup ON api_keys FOR SELECT TO hubbub_lookup USING (true);
GRANT SELECT, INSERT, UPDATE ON api_keys TO hubbub_app;
GRANT SELECT ON api_keys TO hubbub_lookup;

CREATE TABLE visitors (
  tenant_id    uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
  id           uuid NOT NULL,
  -- The tenant's own id of a signed-in person; NULL for anonymous ones.
  external_id  text CHECK (external_id <> ''),
  name         text NOT NULL DEFAULT '',
  -- Of the token that the widget keeps to be the same visitor next time.
  token_sha256 bytea CHECK (length(token_sha256) = 32),
  created_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id),
  CONSTRAINT visitors_external_id_key UNIQUE (tenant_id, external_id),
  CONSTRAINT visitors_token_key UNIQUE (tenant_id, token_sha256)
);
ALTER TABLE visitors ENABLE ROW LEVEL SECURITY;
ALTER TABLE visitors FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON visitors TO hubbub_app
  USING (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid));
GRANT SELECT, INSERT, UPDATE, DELETE ON visitors TO hubbub_app;

CREATE TABLE tickets (
  tenant_id      uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
  -- 32 random bytes are in the ticket, their digest is here.
  ticket_sha256  bytea NOT NULL CHECK (length(ticket_sha256) = 32),
  principal_kind text NOT NULL CHECK (principal_kind IN ('visitor', 'user', 'operator', 'api_key')),
  principal_id   text NOT NULL,
  principal_name text NOT NULL,
  visitor_id     uuid,
  bot_id         uuid,
  -- The only Origin the ticket may be redeemed from; NULL: any.
  origin         text,
  expires_at     timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, ticket_sha256),
  FOREIGN KEY (tenant_id, visitor_id) REFERENCES visitors ON DELETE CASCADE,
  FOREIGN KEY (tenant_id, bot_id) REFERENCES bots ON DELETE CASCADE
);
CREATE UNIQUE INDEX tickets_digest_key ON tickets (ticket_sha256);
CREATE INDEX tickets_expires_at_idx ON tickets (expires_at);
CREATE INDEX tickets_visitor_idx ON tickets (tenant_id, visitor_id);
CREATE INDEX tickets_bot_idx ON tickets (tenant_id, bot_id);
ALTER TABLE tickets ENABLE ROW LEVEL SECURITY;
ALTER TABLE tickets FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tickets TO hubbub_app
  USING (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid));
CREATE POLICY lookup ON tickets FOR SELECT TO hubbub_lookup USING (true);
CREATE POLICY redeem ON tickets FOR DELETE TO hubbub_lookup USING (true);
GRANT SELECT, INSERT ON tickets TO hubbub_app;
GRANT SELECT, DELETE ON tickets TO hubbub_lookup;

-- Looked up before the tenant is known. Each answers one row by a secret or public id, never a list.
CREATE FUNCTION find_widget_bot(bot uuid)
RETURNS TABLE (tenant_id uuid, allowed_origins text[])
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' AS $$
  SELECT b.tenant_id, b.allowed_origins FROM public.bots b WHERE b.id = bot
$$;

CREATE FUNCTION find_api_key(id text)
RETURNS TABLE (tenant_id uuid, secret_sha256 bytea, name text, created_at timestamptz,
               last_used_at timestamptz, revoked_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' AS $$
  SELECT k.tenant_id, k.secret_sha256, k.name, k.created_at, k.last_used_at, k.revoked_at
  FROM public.api_keys k WHERE k.key_id = id
$$;

-- The row lock of DELETE makes a ticket single-use: of any number of redeemers one gets the row.
CREATE FUNCTION redeem_ticket(digest bytea)
RETURNS TABLE (tenant_id uuid, principal_kind text, principal_id text, principal_name text,
               visitor_id uuid, bot_id uuid, origin text, live boolean)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = '' AS $$
  DELETE FROM public.tickets t WHERE t.ticket_sha256 = digest
  RETURNING t.tenant_id, t.principal_kind, t.principal_id, t.principal_name, t.visitor_id, t.bot_id,
            t.origin, t.expires_at > pg_catalog.now()
$$;

-- Tickets nobody redeemed. Returns how many went; at most a thousand, so that it stays short.
CREATE FUNCTION delete_expired_tickets() RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = '' AS $$
  WITH gone AS (
    DELETE FROM public.tickets WHERE ticket_sha256 IN (
      SELECT ticket_sha256 FROM public.tickets WHERE expires_at < pg_catalog.now()
      ORDER BY expires_at LIMIT 1000)
    RETURNING 1)
  SELECT pg_catalog.count(*) FROM gone
$$;

REVOKE ALL ON FUNCTION find_widget_bot(uuid), find_api_key(text), redeem_ticket(bytea),
  delete_expired_tickets() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION find_widget_bot(uuid), find_api_key(text), redeem_ticket(bytea),
  delete_expired_tickets() TO hubbub_app;
-- A new owner needs CREATE for the moment it becomes one.
GRANT CREATE ON SCHEMA public TO hubbub_lookup;
ALTER FUNCTION find_widget_bot(uuid) OWNER TO hubbub_lookup;
ALTER FUNCTION find_api_key(text) OWNER TO hubbub_lookup;
ALTER FUNCTION redeem_ticket(bytea) OWNER TO hubbub_lookup;
ALTER FUNCTION delete_expired_tickets() OWNER TO hubbub_lookup;
REVOKE CREATE ON SCHEMA public FROM hubbub_lookup;
