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
    installed_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE fanwire.installation IS 'What of fanwire is installed in this database; one row';
GRANT SELECT ON fanwire.installation TO PUBLIC;

-- Raises what is wrong with an event, when fanwire_publish() has found that something is.
CREATE OR REPLACE FUNCTION fanwire.refuse_event(channel text, payload text)
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
    END IF;
    RAISE EXCEPTION 'fanwire_publish: the payload is null'
        USING ERRCODE = 'null_value_not_allowed',
              HINT = 'Publish an empty text or the JSON value null.';
END
$fanwire$;
GRANT EXECUTE ON FUNCTION fanwire.refuse_event(text, text) TO PUBLIC;
