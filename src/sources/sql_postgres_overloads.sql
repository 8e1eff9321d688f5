-- The same for json and jsonb, and what the modes have in common. Each of these names all arguments
-- with their types: no function that somebody else adds to schema public fits better.
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
