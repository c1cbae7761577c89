DROP FUNCTION redeem_ticket(bytea);
CREATE FUNCTION redeem_ticket(digest bytea)
RETURNS TABLE (tenant_id uuid, principal_kind text, principal_id text, principal_name text,
               visitor_id uuid, bot_id uuid, origin text, live boolean)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = '' AS $$
  DELETE FROM public.tickets t WHERE t.ticket_sha256 = digest
  RETURNING t.tenant_id, t.principal_kind, t.principal_id, t.principal_name, t.visitor_id, t.bot_id,
            t.origin, t.expires_at > pg_catalog.now()
$$;
REVOKE ALL ON FUNCTION redeem_ticket(bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION redeem_ticket(bytea) TO hubbub_app;
GRANT CREATE ON SCHEMA public TO hubbub_lookup;
ALTER FUNCTION redeem_ticket(bytea) OWNER TO hubbub_lookup;
REVOKE CREATE ON SCHEMA public FROM hubbub_lookup;

ALTER TABLE tickets DROP COLUMN key_id;

DROP FUNCTION delete_expired_visitors();
DROP POLICY forget ON visitors;
DROP POLICY lookup ON visitors;
REVOKE ALL ON visitors FROM hubbub_lookup;
ALTER TABLE visitors DROP COLUMN expires_at, DROP COLUMN bot_id;
