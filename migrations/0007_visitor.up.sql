-- What visitors and tickets are bound to, and which visitors are forgotten.

ALTER TABLE visitors
  -- The bot that the token was given for. NULL: a person the tenant's own site vouches for.
  ADD COLUMN bot_id uuid,
  -- When somebody who never opened a session is forgotten: whoever asks for a ticket makes a row, and
  -- nobody else would ever take it away. NULL: never.
  ADD COLUMN expires_at timestamptz,
  ADD CONSTRAINT visitors_bot_fkey FOREIGN KEY (tenant_id, bot_id) REFERENCES bots ON DELETE CASCADE;
CREATE INDEX visitors_bot_idx ON visitors (tenant_id, bot_id);
CREATE INDEX visitors_expires_at_idx ON visitors (expires_at) WHERE expires_at IS NOT NULL;

-- Visitors there are belong to the bot they talked to last. Whoever migrates owns the tables, but forced
-- row-level security would show it no row.
ALTER TABLE visitors NO FORCE ROW LEVEL SECURITY;
ALTER TABLE sessions NO FORCE ROW LEVEL SECURITY;
UPDATE visitors v SET bot_id = (
  SELECT s.bot_id FROM sessions s WHERE s.tenant_id = v.tenant_id AND s.visitor_id = v.id
  ORDER BY s.last_activity_at DESC, s.id DESC LIMIT 1)
WHERE v.token_sha256 IS NOT NULL;
UPDATE visitors SET expires_at = now() + interval '2 days'
WHERE token_sha256 IS NOT NULL AND bot_id IS NULL;
ALTER TABLE visitors FORCE ROW LEVEL SECURITY;
ALTER TABLE sessions FORCE ROW LEVEL SECURITY;

CREATE POLICY lookup ON visitors FOR SELECT TO hubbub_lookup USING (true);
CREATE POLICY forget ON visitors FOR DELETE TO hubbub_lookup USING (true);
GRANT SELECT (tenant_id, id, expires_at), DELETE ON visitors TO hubbub_lookup;

-- Deleting a visitor deletes their sessions, so the condition is asked twice: of a row that changed
-- meanwhile, PostgreSQL asks only the outer one again. Returns how many went; at most a thousand.
CREATE FUNCTION delete_expired_visitors() RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = '' AS $$
  WITH gone AS (
    DELETE FROM public.visitors v USING (
      SELECT tenant_id, id FROM public.visitors WHERE expires_at < pg_catalog.now()
      ORDER BY expires_at LIMIT 1000) old
    WHERE v.tenant_id = old.tenant_id AND v.id = old.id AND v.expires_at < pg_catalog.now()
    RETURNING 1)
  SELECT pg_catalog.count(*) FROM gone
$$;

-- The API key that issued the ticket, by its public id: revoked, its tickets open nothing.
ALTER TABLE tickets ADD COLUMN key_id text;

DROP FUNCTION redeem_ticket(bytea);
CREATE FUNCTION redeem_ticket(digest bytea)
RETURNS TABLE (tenant_id uuid, principal_kind text, principal_id text, principal_name text,
               visitor_id uuid, bot_id uuid, origin text, key_id text, live boolean)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = '' AS $$
  DELETE FROM public.tickets t WHERE t.ticket_sha256 = digest
  RETURNING t.tenant_id, t.principal_kind, t.principal_id, t.principal_name, t.visitor_id, t.bot_id,
            t.origin, t.key_id,
            t.expires_at > pg_catalog.now() AND (t.key_id IS NULL OR EXISTS (
              SELECT FROM public.api_keys k WHERE k.tenant_id = t.tenant_id
              AND k.key_id = t.key_id AND k.revoked_at IS NULL))
$$;

REVOKE ALL ON FUNCTION redeem_ticket(bytea), delete_expired_visitors() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION redeem_ticket(bytea), delete_expired_visitors() TO hubbub_app;
GRANT CREATE ON SCHEMA public TO hubbub_lookup;
ALTER FUNCTION redeem_ticket(bytea) OWNER TO hubbub_lookup;
ALTER FUNCTION delete_expired_visitors() OWNER TO hubbub_lookup;
REVOKE CREATE ON SCHEMA public FROM hubbub_lookup;
