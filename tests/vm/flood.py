# Does a known number of operations of each kind, and says how many and which processes did them.
# Arguments: rounds, sources in each, directory on a stick, the stick's device, a place to mount it,
# and a file that is made when half is done.
import json

rounds, sources = int(sys.argv[1]), int(sys.argv[2])
usb, device, place, half = sys.argv[3:7]
kinds = ["file.open", "usb.write", "usb.mount", "net.connect", "net.upload", "exec", "exit"]
done, pids = dict.fromkeys(kinds, 0), [os.getpid()]
listener = socket.create_server(("127.0.0.1", 0))
# Nobody asks for a record of these: they fill the ring and nothing else.
source = "/srv/outside/" + "/".join(["s" * 250] * 11) + "/source.txt"


def did(**counts):
    for kind, count in counts.items():
        done[kind.replace("_", ".")] += count


def opens():
    for _ in range(30):
        os.close(os.open("/srv/watched/a.txt", os.O_RDONLY))
    refused("the secret", lambda: os.open("/srv/secret/plan.txt", os.O_RDONLY))
    did(file_open=31)


def writes():
    file = os.open(usb + "/flood.bin", os.O_WRONLY)
    os.write(file, b"flood")
    for _ in range(sources):
        os.close(os.open(source, os.O_RDONLY))
    os.close(file)
    did(usb_write=3)


def mounts():
    same("mount", call(165, device.encode(), place.encode(), b"vfat", 0, b""), 0)
    same("umount", call(166, place.encode(), 0), 0)
    did(usb_mount=2)


def sends():
    peer = socket.create_connection(listener.getsockname())
    other = listener.accept()[0]
    peer.sendall(b"PUT /flood HTTP/1.1\r\nHost: flood.example\r\n\r\n")
    peer.close()
    other.close()
    did(net_connect=1, net_upload=2)


def launches():
    pids.append(os.posix_spawn("/bin/true", ["true"], {}))
    os.waitpid(pids[-1], 0)
    did(exec=1, exit=1)


did(exec=1, exit=1)
for turn in range(rounds):
    for each in [opens, writes, mounts, sends, launches]:
        each()
    if turn == rounds // 2:
        open(half, "w").close()
print(json.dumps({"done": done, "pids": pids, "receipts": rounds}))
