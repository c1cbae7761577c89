-- Who handles a session, and tickets of the tenant's staff.

ALTER TABLE sessions
  -- NULL id: the bot, or nobody while it waits for a person.
  ADD COLUMN handler text NOT NULL DEFAULT 'bot'
    CONSTRAINT sessions_handler_check CHECK (handler IN ('bot', 'operator', 'waiting')),
  ADD COLUMN handler_id text,
  ADD COLUMN handler_name text,
  ADD COLUMN waiting_since timestamptz,
  ADD COLUMN waiting_reason text,
  ADD CONSTRAINT sessions_operator_check CHECK ((handler = 'operator') = (handler_id IS NOT NULL)),
  ADD CONSTRAINT sessions_waiting_check CHECK ((handler = 'waiting') = (waiting_since IS NOT NULL));
CREATE INDEX sessions_waiting_idx ON sessions (tenant_id, waiting_since, id) WHERE handler = 'waiting';
GRANT UPDATE (fence, handler, handler_id, handler_name, waiting_since, waiting_reason)
  ON sessions TO hubbub_app;

ALTER TABLE tickets
  ADD COLUMN operator_role text
    CONSTRAINT tickets_role_check CHECK (operator_role IN ('viewer', 'agent', 'admin', 'owner')),
  ADD CONSTRAINT tickets_operator_check
    CHECK ((principal_kind = 'operator') = (operator_role IS NOT NULL));

DROP FUNCTION redeem_ticket(bytea);
CREATE FUNCTION redeem_ticket(digest bytea)
RETURNS TABLE (tenant_id uuid, principal_kind text, principal_id text, principal_name text,
               operator_role text, visitor_id uuid, bot_id uuid, origin text, key_id text, live boolean)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = '' AS $$
  DELETE FROM public.tickets t WHERE t.ticket_sha256 = digest
  RETURNING t.tenant_id, t.principal_kind, t.principal_id, t.principal_name, t.operator_role,
            t.visitor_id, t.bot_id, t.origin, t.key_id,
            t.expires_at > pg_catalog.now() AND (t.key_id IS NULL OR EXISTS (
              SELECT FROM public.api_keys k WHERE k.tenant_id = t.tenant_id
              AND k.key_id = t.key_id AND k.revoked_at IS NULL))
$$;
REVOKE ALL ON FUNCTION redeem_ticket(bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION redeem_ticket(bytea) TO hubbub_app;
GRANT CREATE ON SCHEMA public TO hubbub_lookup;
ALTER FUNCTION redeem_ticket(bytea) OWNER TO hubbub_lookup;
REVOKE CREATE ON SCHEMA public FROM hubbub_lookup;
