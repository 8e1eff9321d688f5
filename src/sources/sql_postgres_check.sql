-- The columns that a channel template names. (No backslash: with standard_conforming_strings off it would
-- be lost.)
CREATE OR REPLACE FUNCTION fanwire.template_columns(template text)
RETURNS text[]
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $fanwire$
    SELECT ARRAY(SELECT m[1] FROM regexp_matches(template, '[{]([^{}]+)[}]', 'g') m)
$fanwire$;

-- What a template and a list of columns name that the table does not have; null: nothing.
CREATE OR REPLACE FUNCTION fanwire.lacking_columns(tbl regclass, channel text, columns text[])
RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $fanwire$
    SELECT string_agg(DISTINCT name, ', ')
    FROM unnest(fanwire.template_columns(channel) || columns) name
    WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = tbl AND a.attnum > 0
                      AND NOT a.attisdropped AND a.attname = name)
$fanwire$;

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
    ELSIF channel IS NULL OR channel = '' OR regexp_replace(channel, '[{][^{}]+[}]', '', 'g') ~ '[{}]' THEN
        RAISE EXCEPTION 'fanwire_watch: no channel template: %', coalesce(to_json(channel)::text, 'null')
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Write a channel name with {column} for values of the row: todos:{list_id}';
    END IF;
    missing := fanwire.lacking_columns(tbl, channel, columns);
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION 'fanwire_watch: % has no column %', name, missing
            USING ERRCODE = 'undefined_column';
    END IF;
    RETURN name;
END
$fanwire$;
GRANT EXECUTE ON FUNCTION fanwire.template_columns(text),
    fanwire.lacking_columns(regclass, text, text[]),
    fanwire.check_watch(regclass, text, text[]) TO PUBLIC;

