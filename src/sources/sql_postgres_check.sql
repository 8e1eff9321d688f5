-- The table's name as events tell it. Raises if the table cannot be watched so.
CREATE OR REPLACE FUNCTION fanwire.check_watch(tbl regclass, channel text, columns text[])
RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $fanwire$
DECLARE
    name text;
    missing text;
BEGIN
    SELECT n.nspname || '.' || c.relname INTO name
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = tbl AND c.relkind IN ('r', 'p');
    IF name IS NULL THEN
        RAISE EXCEPTION 'fanwire_watch: % is no table', tbl
            USING ERRCODE = 'wrong_object_type';
    ELSIF channel IS NULL OR channel = '' OR regexp_replace(channel, '\{[^{}]+\}', '', 'g') ~ '[{}]' THEN
        RAISE EXCEPTION 'fanwire_watch: no channel template: %', coalesce(to_json(channel)::text, 'null')
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Write a channel name with {column} for values of the row: todos:{list_id}';
    END IF;
    SELECT string_agg(wanted.name, ', ') INTO missing
    FROM (SELECT (regexp_matches(channel, '\{([^{}]+)\}', 'g'))[1] AS name
          UNION SELECT unnest(columns)) wanted
    WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = tbl AND a.attnum > 0
                      AND NOT a.attisdropped AND a.attname = wanted.name);
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION 'fanwire_watch: % has no column %', name, missing
            USING ERRCODE = 'undefined_column';
    END IF;
    RETURN name;
END
$fanwire$;
GRANT EXECUTE ON FUNCTION fanwire.check_watch(regclass, text, text[]) TO PUBLIC;

