# Ends a machine on Compute Engine: deletes it through the API by its own identity, and with it its disk and address,
# which are billed on when a machine only powers off.
# https://cloud.google.com/compute/docs/instances/stop-start-instance

# Without its lease the machine's timer comes here again, until the cloud cuts the power.
rm -f /run/dask-cloud/lease
[ -e /run/dask-cloud/ending ] || touch /run/dask-cloud/ending

metadata="http://${GCE_METADATA_HOST:-metadata.google.internal}/computeMetadata/v1"
compute="${CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE:-https://compute.googleapis.com/compute/v1/}"

ask() {
  curl -sSf -m 10 --noproxy '*' -H 'Metadata-Flavor: Google' "$metadata/$1"
}

# The answer, and its status after the last space.
delete() {
  token=`ask instance/service-accounts/default/token` && zone=`ask instance/zone` &&
  name=`ask instance/name` && project=`ask project/project-id` || return
  token=`printf %s "$token" | sed 's/.*"access_token" *: *"\([^"]*\)".*/\1/'`
  printf 'Authorization: Bearer %s\n' "$token" | curl -sS -m 30 -X DELETE -H @- -w ' %{http_code}' \
    "${compute%/}/projects/$project/zones/${zone##*/}/instances/$name"
}

said=`delete 2>&1`
case "${said##* }" in
  2??) echo 'dask-cloud: this machine is being deleted' ;;
  *) echo "dask-cloud: this machine cannot delete itself yet: `printf '%.500s' "$said" | tr -s ' \n' ' '`" ;;
esac

# A role is known everywhere within minutes: https://cloud.google.com/iam/docs/access-change-propagation
if find /run/dask-cloud/ending -mmin +15 | grep -q .; then
  echo 'dask-cloud: this machine cannot delete itself: shutting down, which leaves its disk'
  shutdown -h now
fi
