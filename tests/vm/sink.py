# Takes what is sent to one address and says how many bytes came. Arguments: kind, address, port.
# Kinds: raw (TCP to its end), http (one request each), datagram.
import socket
import sys

kind, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
sort = socket.SOCK_DGRAM if kind == "datagram" else socket.SOCK_STREAM
server = socket.socket(family, sort)
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind((address, port))
if kind != "datagram":
    server.listen(8)
print("ready", flush=True)


def whole_request(peer):
    head = b""
    while b"\r\n\r\n" not in head:
        piece = peer.recv(65536)
        if not piece:
            return len(head)
        head += piece
    head, body = head.split(b"\r\n\r\n", 1)
    lines = head.lower().split(b"\r\n")
    lengths = [line.split(b":")[1] for line in lines if line.startswith(b"content-length:")]
    left = int(lengths[0]) - len(body) if lengths else 0
    if b"expect: 100-continue" in lines:
        peer.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    total = len(head) + 4 + len(body)
    while left > 0:
        piece = peer.recv(min(left, 65536))
        if not piece:
            break
        left -= len(piece)
        total += len(piece)
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nreceived\n")
    return total


def to_the_end(peer):
    total = 0
    while piece := peer.recv(65536):
        total += len(piece)
    return total


while True:
    if kind == "datagram":
        print("bytes", len(server.recv(65536)), flush=True)
        continue
    peer, _ = server.accept()
    try:
        print("bytes", (whole_request if kind == "http" else to_the_end)(peer), flush=True)
    except OSError as error:
        print("broken", error, flush=True)
    peer.close()
