-- What of fanwire is installed, in any mode.
CREATE SCHEMA IF NOT EXISTS fanwire;
COMMENT ON SCHEMA fanwire IS 'Internals of fanwire; use public.fanwire_publish() and public.fanwire_status()';
GRANT USAGE ON SCHEMA fanwire TO PUBLIC;

CREATE TABLE IF NOT EXISTS fanwire.installation (
    singleton    boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    version      integer NOT NULL,
    mode         text NOT NULL,
    slot         text,
    installed_by text NOT NULL,
    installed_at timestamptz NOT NULL DEFAULT now(),
    since        bigint
);
ALTER TABLE fanwire.installation ADD COLUMN IF NOT EXISTS since bigint; -- an earlier form
COMMENT ON COLUMN fanwire.installation.since IS
    'Transaction that changed the mode: those that were open then have published in the former one';
COMMENT ON TABLE fanwire.installation IS 'What of fanwire is installed in this database; one row';
GRANT SELECT ON fanwire.installation TO PUBLIC;

DO $fanwire$
DECLARE
    installed integer := (SELECT version FROM fanwire.installation);
BEGIN
    IF installed > 1 THEN
        RAISE EXCEPTION 'this database has version % of fanwire''s SQL, this is version 1', installed
            USING HINT = 'Print the SQL with the newer fanwire that is in use here.';
    END IF;
END
$fanwire$;

-- Events travel as UTF-8, in which not all text of a database in another encoding has a form.
CREATE OR REPLACE FUNCTION fanwire.has_utf8(content text)
RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $fanwire$
BEGIN
    PERFORM convert_to(content, 'UTF8');
    RETURN true;
EXCEPTION WHEN untranslatable_character OR character_not_in_repertoire THEN
    RETURN false;
END
$fanwire$;

-- A row's change as far as UTF-8 can tell it, null if not at all.
CREATE OR REPLACE FUNCTION fanwire.in_utf8(event jsonb)
RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $fanwire$
DECLARE
    identity jsonb := event - 'row' - 'old' || '{"partial": true}';
    form jsonb;
BEGIN
    FOREACH form IN ARRAY ARRAY[event, identity, identity - 'key'] LOOP
        IF fanwire.has_utf8(form::text) THEN
            RETURN form;
        END IF;
    END LOOP;
    RETURN NULL;
END
$fanwire$;
GRANT EXECUTE ON FUNCTION fanwire.has_utf8(text), fanwire.in_utf8(jsonb) TO PUBLIC;

-- Raises what is wrong with an event, when fanwire_publish() has found that something is.
DROP FUNCTION IF EXISTS fanwire.refuse_event(text, text); -- an earlier form
CREATE OR REPLACE FUNCTION fanwire.refuse_event(channel text, payload text, key text, client text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $fanwire$
BEGIN
    IF channel IS NULL OR octet_length(convert_to(channel, 'UTF8')) NOT BETWEEN 1 AND 255 THEN
        RAISE EXCEPTION 'fanwire_publish: a channel name has 1 to 255 bytes, this one %',
            coalesce(octet_length(convert_to(channel, 'UTF8')) || ' bytes', 'is null')
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF channel COLLATE "C" ~ E'[\\x01-\\x1f\\x7f]' THEN
        RAISE EXCEPTION 'fanwire_publish: a channel name contains no control characters: %',
            to_json(channel)
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF left(channel, 9) = '$fanwire/' THEN
        RAISE EXCEPTION 'fanwire_publish: channel names beginning with $fanwire/ are reserved'
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF octet_length(convert_to(key, 'UTF8')) NOT BETWEEN 1 AND 255 THEN
        RAISE EXCEPTION 'fanwire_publish: a key has 1 to 255 bytes, this one %',
            octet_length(convert_to(key, 'UTF8'))
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'A hash of what is longer, md5(…), is as good; without a key: null.';
    ELSIF octet_length(convert_to(client, 'UTF8')) > 64 THEN
        RAISE EXCEPTION 'fanwire_publish: the id of a client has at most 64 bytes, this one %',
            octet_length(convert_to(client, 'UTF8'))
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RAISE EXCEPTION 'fanwire_publish: the payload is null'
        USING ERRCODE = 'null_value_not_allowed',
              HINT = 'Publish an empty text or the JSON value null.';
END
$fanwire$;
GRANT EXECUTE ON FUNCTION fanwire.refuse_event(text, text, text, text) TO PUBLIC;
