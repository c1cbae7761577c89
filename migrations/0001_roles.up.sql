-- Roles belong to the whole cluster, so they may exist already: another database of the cluster has
-- them, or an administrator made them with passwords. Two databases may be migrated at the same
-- moment, which is why each statement tolerates having lost the race.
--
--   hubbub_app     what the server logs in as. Owns nothing, bypasses nothing, inherits nothing.
--   hubbub_writer  entered by SET ROLE on the writer's few connections: may write messages of every
--                  tenant in one statement, and read only ids, numbers and times of them.
--   hubbub_lookup  owns the few SECURITY DEFINER functions that must find a row before the tenant is
--                  known. Sees what its own policies allow, and nobody can log in as it.
DO $$
BEGIN
  FOR attempt IN 1..20 LOOP
    BEGIN
      IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'hubbub_app') THEN
        CREATE ROLE hubbub_app LOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS;
      END IF;
      IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'hubbub_writer') THEN
        CREATE ROLE hubbub_writer NOLOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS;
      END IF;
      IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'hubbub_lookup') THEN
        CREATE ROLE hubbub_lookup NOLOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS;
      END IF;
      IF NOT EXISTS (SELECT FROM pg_auth_members WHERE roleid = 'hubbub_writer'::regrole
                     AND member = 'hubbub_app'::regrole) THEN
        GRANT hubbub_writer TO hubbub_app;
      END IF;
      -- Whoever migrates has to be a member to hand functions over to hubbub_lookup.
      IF NOT pg_has_role(current_user, 'hubbub_lookup', 'MEMBER') THEN
        EXECUTE format('GRANT hubbub_lookup TO %I', current_user);
      END IF;
      EXIT;
    -- internal_error is 'tuple concurrently updated': two sessions changed one role at once.
    EXCEPTION WHEN duplicate_object OR unique_violation OR internal_error THEN
      PERFORM pg_sleep(0.05);
    END;
  END LOOP;

  IF EXISTS (SELECT FROM pg_roles WHERE rolname IN ('hubbub_app', 'hubbub_writer', 'hubbub_lookup')
             AND (rolsuper OR rolbypassrls OR rolinherit AND rolname = 'hubbub_app')) THEN
    RAISE EXCEPTION 'the roles hubbub_app, hubbub_writer and hubbub_lookup must be NOSUPERUSER and NOBYPASSRLS, and hubbub_app NOINHERIT';
  END IF;
END $$;

GRANT USAGE ON SCHEMA public TO hubbub_app, hubbub_writer, hubbub_lookup;
-- The server compares the schema's version with the one it was built for.
GRANT SELECT ON hubbub_migrations TO hubbub_app;
