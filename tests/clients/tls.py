"""One request by TLS: tls.py PORT AUTHORITIES NAME [CERTIFICATE KEY]. Prints what came of it as a line of JSON."""

import http.client
import json
import socket
import ssl
import sys

port, authorities, name, *own = sys.argv[1:]
context = ssl.create_default_context(cafile=authorities)
if own:
    context.load_cert_chain(*own)
try:
    connection = http.client.HTTPSConnection("127.0.0.1", int(port), context=context, timeout=10)
    # The certificate must be for this name, wherever the connection goes.
    reached = socket.create_connection(("127.0.0.1", int(port)), timeout=10)
    connection.sock = context.wrap_socket(reached, server_hostname=name)
    serial = int(connection.sock.getpeercert()["serialNumber"], 16)
    connection.request("GET", "/health")
    answer = connection.getresponse()
    print(json.dumps({"status": answer.status, "serial": serial}))
except (OSError, http.client.HTTPException) as error:
    print(json.dumps({"refused": repr(error)}))
