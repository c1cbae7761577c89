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
REVOKE ALL ON FUNCTION redeem_ticket(bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION redeem_ticket(bytea) TO hubbub_app;
GRANT CREATE ON SCHEMA public TO hubbub_lookup;
ALTER FUNCTION redeem_ticket(bytea) OWNER TO hubbub_lookup;
REVOKE CREATE ON SCHEMA public FROM hubbub_lookup;

ALTER TABLE tickets DROP COLUMN operator_role;

REVOKE UPDATE (fence, handler, handler_id, handler_name, waiting_since, waiting_reason)
  ON sessions FROM hubbub_app;
ALTER TABLE sessions
  DROP COLUMN waiting_reason,
  DROP COLUMN waiting_since,
  DROP COLUMN handler_name,
  DROP COLUMN handler_id,
  DROP COLUMN handler;
