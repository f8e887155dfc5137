"""A model that came with a dataset reads the assets of this machine, and does nothing else."""

from xml.etree import ElementTree

import mujoco
import numpy as np
import pytest

from robopol.envs.foreign import recorded_model
from robopol.envs.foreign.recorded_model import checked
from robopol.errors import EnvError

TRIANGLES = """v 0 0 0
v 1 0 0
v 0 1 0
v 0 0 1
f 1 3 2
f 1 2 4
f 1 4 3
f 2 3 4
"""


@pytest.fixture
def assets(tmp_path):
    folder = tmp_path / "site-packages/robosuite/models/assets"
    (folder / "grippers").mkdir(parents=True)
    (folder / "grippers/finger.obj").write_text(TRIANGLES)
    (tmp_path / "secret.obj").write_text(TRIANGLES)
    (folder / "out.obj").symlink_to(tmp_path / "secret.obj")
    return folder


def model(asset="", body="", head=""):
    return (
        f"<mujoco model='base'>{head}<asset>{asset}</asset><worldbody><body><freejoint/><geom size='.1'/>{body}</body>"
        "</worldbody></mujoco>"
    )


def mesh(place):
    return f"<mesh name='m' file='{place}'/>"


@pytest.mark.parametrize(
    "place",
    [
        "/home/anybody/robosuite/models/assets/grippers/finger.obj",
        "C:\\robosuite\\robosuite\\models\\assets\\grippers\\finger.obj",
        "/a/robosuite/models/assets/robosuite/models/assets/robots/../grippers/finger.obj",
    ],
)
def test_recorded_places_are_found_here(assets, place):
    head = "<compiler meshdir='/etc' strippath='true'/><size njmax='5000' memory='1P'/>"
    text = checked(model(mesh(place), "<geom type='mesh' mesh='m'/>", head), assets)
    loaded = mujoco.MjModel.from_xml_string(text)
    assert loaded.nmesh == 1
    assert loaded.mesh_vertnum[0] == 4
    assert ElementTree.fromstring(text).find("compiler").attrib == {}


def test_a_plain_model_stays_what_it_is(assets):
    body = "<geom name='lid' size='.2 .1 .3' type='box' pos='0 0 1' rgba='1 0 0 1'/><site name='grip' pos='0 0 .1'/>"
    body += "<joint name='turn' type='hinge' range='-1 1'/>"
    text = model(body=f"<body pos='0 0 1'>{body}</body>").replace(
        "</mujoco>",
        "<actuator><motor joint='turn' gear='3'/></actuator><sensor><force site='grip'/><jointpos joint='turn'/>"
        "</sensor><keyframe><key time='1'/></keyframe></mujoco>",
    )
    wanted, found = (mujoco.MjModel.from_xml_string(each) for each in (text, checked(text, assets)))
    for name in ("geom_size", "geom_pos", "geom_rgba", "jnt_range", "actuator_gear", "sensor_type", "key_time"):
        assert np.array_equal(getattr(wanted, name), getattr(found, name)), name


REFUSED = {
    "elsewhere": (mesh("/etc/hostname"), "names the file '/etc/hostname', which is none of robosuite/models/assets"),
    "relative": (mesh("grippers/finger.obj"), "none of robosuite/models/assets"),
    "upwards": (mesh("/x/robosuite/models/assets/../../../secret.obj"), "none of robosuite/models/assets"),
    "further up": (mesh("/robosuite/models/assets/../../../../secret.obj"), "none of robosuite/models/assets"),
    "a link": (mesh("/robosuite/models/assets/out.obj"), "none of robosuite/models/assets"),
    "absolute": (mesh("/robosuite/models/assets//etc/hostname"), "none of robosuite/models/assets"),
    "a folder": (mesh("/robosuite/models/assets/grippers"), "none of robosuite/models/assets"),
    "missing": (mesh("/robosuite/models/assets/no.obj"), "none of robosuite/models/assets"),
    "too long": (mesh("/robosuite/models/assets/" + "x" * 5000), "none of robosuite/models/assets"),
    "texture": ("<texture type='cube' fileright='/etc/hostname'/>", "names the file '/etc/hostname'"),
    "height": ("<hfield size='1 1 1 1' file='/etc/hostname'/>", "names the file '/etc/hostname'"),
    "another model": ("<model name='a' file='/robosuite/models/assets/a.xml'/>", "an element <model>"),
    "skin": ("<skin file='/robosuite/models/assets/a.skn'/>", "an element <skin>"),
    "made mesh": ("<mesh name='m' builtin='sphere' params='20'/>", "<mesh builtin='sphere'>, which runs code"),
    "large texture": ("<texture type='2d' builtin='flat' width='99999' height='99999'/>", "<texture width='99999'>"),
    "large heights": ("<hfield name='h' size='1 1 1 1' nrow='2' ncol='1e9'/>", "<hfield ncol='1e9'>"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_assets_that_do_more_are_refused(assets, name):
    asset, words = REFUSED[name]
    with pytest.raises(EnvError, match=words):
        checked(model(asset), assets)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (model(head="<include file='/etc/passwd'/>"), "an element <include>"),
        (model(head="<extension><plugin plugin='mujoco.sdf.gear'/></extension>"), "an element <"),
        (model(body="<geom type='sdf' mesh='m'><plugin instance='gear'/></geom>"), "an element <plugin>"),
        (model(head="<sensor><plugin plugin='a.b' objtype='body'/></sensor>"), "an element <plugin>"),
        (model(head="<actuator><motor plugin='a.b'/></actuator>"), "<motor plugin='a.b'>, which runs code"),
        (model(body="<replicate count='1000000'><geom size='1'/></replicate>"), "an element <replicate>"),
        (model(body="<composite type='cable' count='9 9 9'/>"), "an element <composite>"),
        (model(body="<flexcomp name='f' type='mesh' file='/etc/passwd'/>"), "an element <flexcomp>"),
        (model(body="<attach model='a'/>"), "an element <attach>"),
        (model(head="<size nuserdata='1000000000'/>"), "<size nuserdata='1000000000'>"),
        (model(head="<custom><numeric name='n' size='1000000000' data='0'/></custom>"), "<numeric size="),
        (model(body="<body>" * 300 + "</body>" * 300), "nested deeper"),
        ("<!DOCTYPE m [<!ENTITY a 'aa'>]><mujoco>&a;</mujoco>", "declares entities"),
        ("<mujocoinclude/>", "an element <mujocoinclude>"),
        ("<worldbody/>", "an element <worldbody>"),
        (model(body="<mujoco/>"), "an element <mujoco>"),
        ("<mujoco>", "is not MJCF"),
        ("", "is not MJCF"),
    ],
)
def test_models_that_do_more_are_refused(assets, text, words):
    with pytest.raises(EnvError, match=words):
        checked(text, assets)


def test_a_model_without_end_is_refused(assets, monkeypatch):
    monkeypatch.setattr(recorded_model, "_MOST", 50)
    checked(model(body="<geom size='1'/>" * 40), assets)
    with pytest.raises(EnvError, match="more than 50 elements"):
        checked(model(body="<geom size='1'/>" * 60), assets)
