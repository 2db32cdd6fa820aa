# Ends a machine on Azure: deletes it through Azure Resource Manager by its own identity. One that only powers off is
# billed on as if it ran: https://learn.microsoft.com/azure/virtual-machines/states-billing
# $1 is where Azure Resource Manager is, $2 the client id of the identity.

manager="${1%/}"
client="$2"
imds="${AZURE_POD_IDENTITY_AUTHORITY_HOST:-http://169.254.169.254}/metadata"

ask() {
  curl -sSf -m 10 --noproxy '*' -H 'Metadata: true' "$imds/$1"
}

# The answer, and its status after the last space: $1 is the method, $2 what follows the machine's own id.
call() {
  token=`ask "identity/oauth2/token?api-version=2018-02-01&client_id=$client&resource=$manager/"` &&
  id=`ask 'instance/compute/resourceId?api-version=2021-02-01&format=text'` || return
  token=`printf %s "$token" | sed 's/.*"access_token" *: *"\([^"]*\)".*/\1/'`
  method=$1 path=$2
  shift 2
  printf 'Authorization: Bearer %s\n' "$token" | curl -sS -m 30 -X $method -H @- -w ' %{http_code}' "$@" "$manager$id$path"
}

# The serial console of a machine is gone with the machine. Where Dask failed, its last line becomes a tag, and whoever
# wants more of it has some seconds to read it.
case "$EXIT_STATUS" in
  '' | 0 | 7?) ;;
  *)
    [ -n "$ENDED" ] || ENDED=`journalctl -n 1 -o cat _SYSTEMD_UNIT=dask-cloud.service`
    last=`printf '%s\n' "$ENDED" | tr -cd ' -~' | tr -d '"\\\\' | cut -c -250`
    call PATCH '/providers/Microsoft.Resources/tags/default?api-version=2021-04-01' -o /dev/null \
      -H 'Content-Type: application/json' -d '{"operation": "Merge", "properties": {"tags": {"dask-ended": "'"$last"'"}}}'
    sleep "${DASK_CLOUD_LINGER_S:-30}" ;;
esac

# Without its lease the machine's timer comes here again, until the cloud cuts the power.
rm -f /run/dask-cloud/lease
said=`call DELETE '?api-version=2024-07-01&forceDeletion=true' 2>&1`
case "${said##* }" in
  2??) echo 'dask-cloud: this machine is being deleted' ;;
  *) echo "dask-cloud: this machine cannot delete itself yet: `printf '%.500s' "$said" | tr -s ' \n' ' '`" ;;
esac
