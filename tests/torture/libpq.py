"""PostgreSQL for publishers, by the C library that fanwire itself needs: no Python driver has to be
there. Blocking; one statement or several at a time; results as lists of strings."""
import ctypes

_lib = ctypes.CDLL("libpq.so.5")
for _name, _result, *_arguments in (
        ("PQconnectdb", ctypes.c_void_p, ctypes.c_char_p),
        ("PQstatus", ctypes.c_int, ctypes.c_void_p),
        ("PQerrorMessage", ctypes.c_char_p, ctypes.c_void_p),
        ("PQexec", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p),
        ("PQresultStatus", ctypes.c_int, ctypes.c_void_p),
        ("PQntuples", ctypes.c_int, ctypes.c_void_p),
        ("PQgetvalue", ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int),
        ("PQclear", None, ctypes.c_void_p),
        ("PQsetNoticeProcessor", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p,
         ctypes.c_void_p),
        ("PQfinish", None, ctypes.c_void_p)):
    _function = getattr(_lib, _name)
    _function.restype, _function.argtypes = _result, _arguments

# What a crashing server warns of is not for the terminal.
_ignore_notice = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_char_p)(lambda *_: None)

CONNECTION_OK = 0
COMMAND_OK, TUPLES_OK = 1, 2


class Error(Exception):
    """The server refused a statement: it had no effect."""


class Lost(Exception):
    """There is no connection any more: what was under way may have had its effect."""


def literal(text):
    return "'" + text.replace("'", "''") + "'"


class Connection:
    def __init__(self, url):
        self._conn = _lib.PQconnectdb((url + "?connect_timeout=5").encode())
        if _lib.PQstatus(self._conn) != CONNECTION_OK:
            why = _lib.PQerrorMessage(self._conn).decode(errors="replace")
            self.close()
            raise Lost(why)
        _lib.PQsetNoticeProcessor(self._conn, _ignore_notice, None)

    def execute(self, sql):
        """Returns the first column of the last statement's rows."""
        result = _lib.PQexec(self._conn, sql.encode())
        try:
            if result and _lib.PQresultStatus(result) in (COMMAND_OK, TUPLES_OK):
                return [_lib.PQgetvalue(result, i, 0).decode()
                        for i in range(_lib.PQntuples(result))]
            why = _lib.PQerrorMessage(self._conn).decode(errors="replace")
        finally:
            _lib.PQclear(result)
        if _lib.PQstatus(self._conn) != CONNECTION_OK:
            raise Lost(why)
        raise Error(why)

    def close(self):
        if self._conn:
            _lib.PQfinish(self._conn)
        self._conn = None
