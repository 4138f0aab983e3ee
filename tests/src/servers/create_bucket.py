"""create_bucket ENDPOINT NAME: a signed PUT (AWS signature version 4, key and secret `test`), standard library only."""
import datetime, hashlib, hmac, sys, urllib.parse, urllib.request

endpoint, bucket = sys.argv[1:]
host = urllib.parse.urlparse(endpoint).netloc
now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
scope = f"{now[:8]}/us-east-1/s3/aws4_request"
body = hashlib.sha256(b"").hexdigest()
headers = {"host": host, "x-amz-content-sha256": body, "x-amz-date": now}
names = ";".join(headers)
canonical = f"PUT\n/{bucket}\n\n" + "".join(f"{k}:{v}\n" for k, v in headers.items()) + f"\n{names}\n{body}"
to_sign = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
key = b"AWS4test"
for part in scope.split("/"):
    key = hmac.new(key, part.encode(), hashlib.sha256).digest()
signature = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
headers["Authorization"] = f"AWS4-HMAC-SHA256 Credential=test/{scope}, SignedHeaders={names}, Signature={signature}"
urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{bucket}", method="PUT", headers=headers), timeout=30).read()
