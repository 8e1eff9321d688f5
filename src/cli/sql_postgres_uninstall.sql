-- Removes everything that "fanwire sql postgres" has installed. Run it again at will.

DROP FUNCTION IF EXISTS public.fanwire_publish(text, text, text, text);
DROP FUNCTION IF EXISTS public.fanwire_publish(text, jsonb, text, text);
DROP FUNCTION IF EXISTS public.fanwire_publish(text, json, text, text);
DROP FUNCTION IF EXISTS public.fanwire_status();
DROP FUNCTION IF EXISTS public.fanwire_watch(regclass, text, text[]);
DROP FUNCTION IF EXISTS public.fanwire_unwatch(regclass);
-- With it go the triggers of watched tables.
DROP SCHEMA IF EXISTS fanwire CASCADE;
