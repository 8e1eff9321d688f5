-- fanwire for Postgres, wal mode, version 1 (Postgres 14 or later, wal_level = logical).
--
-- Install or upgrade:  fanwire sql postgres --mode wal | psql -1 -v ON_ERROR_STOP=1 "$DATABASE_URL"
-- Remove:              fanwire sql postgres --uninstall | psql -1 -v ON_ERROR_STOP=1 "$DATABASE_URL"
--
-- Run it as a role that may create a schema and a publication in the database and functions in
-- schema public; run it again at will, also where the SQL of another mode is installed: tables that
-- are watched stay watched. Every role may use what it installs:
--
--   SELECT fanwire_publish('todos', '{"op":"insert","id":7}');         -- text, json or jsonb
--   SELECT fanwire_publish('todos', to_jsonb(t), key => 'abc', client => 'k3x9') FROM todos t;
--   SELECT * FROM fanwire_status();
--
-- An event is written into the write-ahead log (pg_logical_emit_message); it is delivered when the
-- transaction commits, and never if it does not. "fanwire serve" reads it there by a replication slot
-- that it makes itself.

CREATE SCHEMA IF NOT EXISTS fanwire;
COMMENT ON SCHEMA fanwire IS 'Internals of fanwire; use public.fanwire_publish() and public.fanwire_status()';
GRANT USAGE ON SCHEMA fanwire TO PUBLIC;

CREATE TABLE IF NOT EXISTS fanwire.installation (
    singleton    boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    version      integer NOT NULL,
    mode         text NOT NULL,
    slot         text,
    installed_by text NOT NULL,
    installed_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE fanwire.installation IS 'What of fanwire is installed in this database; one row';
GRANT SELECT ON fanwire.installation TO PUBLIC;

DO $fanwire$
DECLARE
    installed fanwire.installation;
BEGIN
    SELECT * INTO installed FROM fanwire.installation;
    IF installed.version > 1 THEN
        RAISE EXCEPTION 'this database has version % of fanwire''s SQL, this is version 1', installed.version
            USING HINT = 'Print the SQL with the newer fanwire that is in use here.';
    ELSIF current_setting('server_version_num')::integer < 140000 THEN
        RAISE EXCEPTION 'fanwire''s wal mode needs Postgres 14 or later, this is %',
            current_setting('server_version')
            USING HINT = 'Install another mode: fanwire sql postgres --mode outbox';
    ELSIF current_setting('wal_level') <> 'logical' THEN
        RAISE WARNING 'wal_level is "%": fanwire_publish() will refuse until it is "logical"',
            current_setting('wal_level')
            USING HINT = 'ALTER SYSTEM SET wal_level = logical, then restart the server.';
    END IF;
    IF installed.mode IS DISTINCT FROM 'wal' THEN
        PERFORM pg_notify('fanwire', 'installed'); -- who reads in another mode looks again
    END IF;
END
$fanwire$;

INSERT INTO fanwire.installation (version, mode, slot, installed_by)
VALUES (1, 'wal', NULL, current_user)
ON CONFLICT (singleton) DO UPDATE
SET version = excluded.version, mode = excluded.mode, slot = excluded.slot,
    installed_by = excluded.installed_by, installed_at = now();

-- The message is bytes in the log, never converted: always UTF-8.
CREATE OR REPLACE FUNCTION public.fanwire_publish(
    channel text, payload text, key text DEFAULT NULL, client text DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $fanwire$
DECLARE
    channel_bytes integer := octet_length(convert_to(channel, 'UTF8'));
BEGIN
    IF current_setting('wal_level') <> 'logical' THEN
        RAISE EXCEPTION 'fanwire_publish: nobody could read the event: wal_level is "%"',
            current_setting('wal_level')
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'ALTER SYSTEM SET wal_level = logical, then restart the server; or install another mode: fanwire sql postgres --mode outbox';
    ELSIF channel IS NULL OR channel_bytes NOT BETWEEN 1 AND 255 THEN
        RAISE EXCEPTION 'fanwire_publish: a channel name has 1 to 255 bytes, this one %',
            coalesce(channel_bytes || ' bytes', 'is null')
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF channel COLLATE "C" ~ E'[\\x01-\\x1f\\x7f]' THEN
        RAISE EXCEPTION 'fanwire_publish: a channel name contains no control characters: %',
            to_json(channel)
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF left(channel, 9) = '$fanwire/' THEN
        RAISE EXCEPTION 'fanwire_publish: channel names beginning with $fanwire/ are reserved'
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF payload IS NULL THEN
        RAISE EXCEPTION 'fanwire_publish: the payload is null'
            USING ERRCODE = 'null_value_not_allowed',
                  HINT = 'Publish an empty text or the JSON value null.';
    END IF;
    PERFORM pg_logical_emit_message(true, 'fanwire', convert_to(chr(30)
        || json_strip_nulls(json_build_object('channel', channel, 'key', key, 'from', client))::text
        || chr(10) || payload, 'UTF8'));
END
$fanwire$;

CREATE OR REPLACE FUNCTION public.fanwire_publish(
    channel text, payload jsonb, key text DEFAULT NULL, client text DEFAULT NULL)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $fanwire$ SELECT public.fanwire_publish(channel, payload::text, key, client) $fanwire$;

CREATE OR REPLACE FUNCTION public.fanwire_publish(
    channel text, payload json, key text DEFAULT NULL, client text DEFAULT NULL)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $fanwire$ SELECT public.fanwire_publish(channel, payload::text, key, client) $fanwire$;

CREATE OR REPLACE FUNCTION public.fanwire_status()
RETURNS TABLE (version integer, mode text, slot text, installed_by text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $fanwire$
    SELECT i.version, i.mode, i.slot, i.installed_by FROM fanwire.installation i
$fanwire$;

COMMENT ON FUNCTION public.fanwire_publish(text, text, text, text) IS
    'Publishes an event to a fanwire channel when this transaction commits';
COMMENT ON FUNCTION public.fanwire_publish(text, jsonb, text, text) IS
    'Publishes an event to a fanwire channel when this transaction commits';
COMMENT ON FUNCTION public.fanwire_publish(text, json, text, text) IS
    'Publishes an event to a fanwire channel when this transaction commits';
COMMENT ON FUNCTION public.fanwire_status() IS 'What of fanwire is installed in this database';

GRANT EXECUTE ON FUNCTION public.fanwire_publish(text, text, text, text),
    public.fanwire_publish(text, jsonb, text, text),
    public.fanwire_publish(text, json, text, text), public.fanwire_status() TO PUBLIC;

