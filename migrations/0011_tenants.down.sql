DROP FUNCTION list_tenants();
REVOKE SELECT (id, name, weight, created_at) ON tenants FROM hubbub_lookup;
DROP POLICY lookup ON tenants;
