-- Whoever runs the server sees all its tenants: `hubbub tenant list`.

CREATE POLICY lookup ON tenants FOR SELECT TO hubbub_lookup USING (true);
GRANT SELECT (id, name, weight, created_at) ON tenants TO hubbub_lookup;
CREATE FUNCTION list_tenants()
RETURNS TABLE (id uuid, name text, weight int4, created_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' AS $$
  SELECT t.id, t.name, t.weight, t.created_at FROM public.tenants t ORDER BY t.created_at, t.id
$$;
REVOKE ALL ON FUNCTION list_tenants() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION list_tenants() TO hubbub_app;
GRANT CREATE ON SCHEMA public TO hubbub_lookup;
ALTER FUNCTION list_tenants() OWNER TO hubbub_lookup;
REVOKE CREATE ON SCHEMA public FROM hubbub_lookup;
