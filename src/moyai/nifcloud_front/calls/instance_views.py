"""What the API shows of an instance."""

from __future__ import annotations

from moyai.nifcloud_front.calls.call import ApiCall, Values
from moyai.nifcloud_front.store.front_store import Transaction
from moyai.nifcloud_front.store.rows import (
    COMMON_GLOBAL,
    COMMON_PRIVATE,
    STATE_CODES,
    BalancerRow,
    DiskRow,
    ImageRow,
    InstanceRow,
    LanRow,
    NicRow,
)


def state(name: str) -> Values:
    return {"Code": STATE_CODES[name], "Name": name}


def private_address(row: InstanceRow) -> str:
    """The address of its first interface that is not the public one; empty while the machine does not run."""
    if row.state != "running":
        return ""
    return next((nic.address for nic in row.nics if nic.network != COMMON_GLOBAL), "")


def network_name(tx: Transaction, network: str) -> str:
    if network in (COMMON_GLOBAL, COMMON_PRIVATE):
        return network
    lan = tx.get(LanRow, network)
    return lan.name if lan else ""


def instance(call: ApiCall, row: InstanceRow, *, created: bool = False) -> Values:
    """``created``: for the answer of RunInstances, which has fewer members."""
    common: Values = {
        "AccountingType": row.accounting,
        "Architecture": "x86_64",
        "BlockDeviceMapping": mappings(call, row, devices=False),
        "Description": row.description,
        "DnsName": row.public,
        "ImageId": row.image,
        "InstanceId": row.name,
        "InstanceState": state(row.state),
        "InstanceType": row.type,
        "InstanceUniqueId": row.uid,
        "IpAddress": row.public,
        "IpAddressV6": "",
        "IpType": row.ip_type,
        "KeyName": row.key,
        "LaunchTime": row.launched,
        "Monitoring": {"State": "monitoring"},
        "NetworkInterfaceSet": [_nic(call, nic, place=place, row=row) for place, nic in enumerate(row.nics)],
        "NiftyPrivateIpType": "static",
        "Placement": {"AvailabilityZone": row.zone},
        "Platform": "",
        "PrivateDnsName": private_address(row),
        "PrivateIpAddress": private_address(row),
        "Reason": "",
        "RootDeviceType": "disk",
    }
    if created:
        return common
    image = call.tx.get(ImageRow, row.image)
    return {
        **common,
        "ImageName": image.name if image else "",
        "Loadbalancing": balancings(call, row),
        "NextMonthAccountingType": row.accounting,
        "VmTools": {"State": "running" if row.state == "running" else "notRunning", "Version": ""},
    }


def nic_values(call: ApiCall, nic: NicRow, *, place: int, row: InstanceRow) -> Values:
    public = row.public if nic.network == COMMON_GLOBAL else ""
    return {
        "Attachment": {"AttachTime": "", "DeleteOnTermination": "true", "DeviceIndex": str(place), "Status": "attached"},
        "MacAddress": nic.mac,
        "NiftyNetworkId": nic.network,
        "NiftyNetworkName": network_name(call.tx, nic.network),
        "PrivateIpAddress": nic.address if row.state == "running" else "",
        "Association": {"PublicIp": public},
        "Status": "in-use",
    }


def _nic(call: ApiCall, nic: NicRow, *, place: int, row: InstanceRow) -> Values:
    values = nic_values(call, nic, place=place, row=row)
    if call.operation != "RunInstances":
        return values
    # the shape of RunInstances has no addresses
    return {key: value for key, value in values.items() if key not in ("MacAddress", "PrivateIpAddress")}


def mappings(call: ApiCall, row: InstanceRow, *, devices: bool) -> list[Values]:
    """The disks of an instance. Device names are shown by DescribeInstanceAttribute alone."""
    found = [one for one in call.tx.all(DiskRow) if one.instance == row.uid]
    return [
        {
            **({"DeviceName": device_name(one)} if devices else {}),
            "Ebs": {
                "DeleteOnTermination": "false",
                "Status": one.attachment or "attached",
                "VolumeId": one.name,
                "VolumeUniqueId": one.uid,
            },
        }
        for one in sorted(found, key=lambda one: one.slot)
    ]


def device_name(row: DiskRow) -> str:
    return f"SCSI (0:{row.slot})" if row.slot else ""


def balancings(call: ApiCall, row: InstanceRow) -> list[Values]:
    return [
        {
            "InstancePort": pair.instance_port,
            "LoadBalancerName": balancer.name,
            "LoadBalancerPort": pair.port,
            "State": "InService" if row.uid in pair.healthy else "OutOfService",
        }
        for balancer in call.tx.all(BalancerRow)
        for pair in balancer.pairs
        if row.uid in pair.members
    ]
