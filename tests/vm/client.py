# A stock gRPC client, made from the .proto files by protoc: a live stream that breaks and goes on,
# and a question. Arguments: the directory of the generated files, that of the certificates, the
# address, and the command whose launch the stream is to show.
import json, subprocess, sys

generated, certificates, address, program = sys.argv[1:5]
sys.path.insert(0, generated)

import grpc
from sekimori.v1 import event_pb2, query_pb2, watch_pb2


def read(name):
    with open(certificates + "/" + name, "rb") as file:
        return file.read()


credentials = grpc.ssl_channel_credentials(read("ca.pem"), read("key.pem"), read("cert.pem"))


def stream(channel, request):
    call = channel.unary_stream(
        "/sekimori.v1.WatchService/Subscribe",
        request_serializer=watch_pb2.SubscribeRequest.SerializeToString,
        response_deserializer=watch_pb2.SubscribeResponse.FromString,
    )
    return call(request, timeout=60)


def marked(cursor, marker):
    """Launches that the stream shows behind `cursor`, up to the one with this marker."""
    request = watch_pb2.SubscribeRequest(cursor=cursor)
    request.filter.kinds.append(event_pb2.KIND_EXEC)
    shown = []
    with grpc.secure_channel(address, credentials) as channel:
        for response in stream(channel, request):
            arguments = list(response.event.process.argv)
            shown.append((response.event.cursor, arguments[-1].decode() if arguments else ""))
            if shown[-1][1] == marker:
                return shown
    raise SystemExit("the stream ended before it showed " + marker)


with grpc.secure_channel(address, credentials) as channel:
    status = channel.unary_unary(
        "/sekimori.v1.QueryService/Status",
        request_serializer=query_pb2.StatusRequest.SerializeToString,
        response_deserializer=query_pb2.StatusResponse.FromString,
    )(query_pb2.StatusRequest(), timeout=60)
start = status.last_cursor
subprocess.run([program, "持出し-1"], check=True)
first = marked(start, "持出し-1")
subprocess.run([program, "持出し-2"], check=True)
second = marked(first[-1][0], "持出し-2")
cursors = [cursor for cursor, _ in first + second]
print(json.dumps({
    "ordered": cursors == sorted(set(cursors)),
    "times": [sum(marker == "持出し-%d" % number for _, marker in first + second) for number in (1, 2)],
}))
